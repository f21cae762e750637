"""`commit`: what a container wrote becomes a layer on top of its image, and its words the new image's configuration."""

from __future__ import annotations

import time
from contextlib import contextmanager, nullcontext

from cloison.archive.layer_writer import write_changes
from cloison.engine.bringing import Bringing, local_reference
from cloison.engine.restoring import restore_layers
from cloison.engine.trees import changed_tree
from cloison.errors import Conflict, NotFound
from cloison.images.changes import apply_changes
from cloison.images.layout import read_manifest, store_image, store_layer
from cloison.images.records import ImageStore
from cloison.model.image import HistoryEntry
from cloison.model.record import Record
from cloison.model.units import SECOND_NS, render_rfc3339
from cloison.oci.derive import derive_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloison.engine.containers import Containers
    from cloison.images.layout import Layer
    from cloison.model.container import ContainerRecord
    from cloison.model.image import Image, ImageConfig
    from cloison.model.settings import Settings
    from cloison.store.blobs import Blobs


class Commit(Record):
    """What `commit` was asked for."""

    name: str = ""  # "" leaves the image without one
    author: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()  # Dockerfile instructions
    pause: bool = True


def commit(record: ContainerRecord, asked: Commit, *, settings: Settings, containers: Containers) -> Image:
    """Make the image; a running container is frozen while its files are read, where that is asked for.

    Raises: NotFound when its image is gone, InvalidArgument, Unavailable.
    """
    reference = local_reference(asked.name) if asked.name else None
    with Bringing(settings) as bringing:
        base = _base_of(record, settings)
        config = apply_changes(container_config(record, base.config), asked.changes)
        manifest, _body = read_manifest(base, bringing.blobs)
        restore_layers(base, bringing.blobs, settings=settings)  # the new image comes from no registry
        with _frozen(record, containers) if asked.pause else nullcontext():
            layer = _store_changes(record, settings=settings, blobs=bringing.blobs)
        entry = HistoryEntry(
            created=render_rfc3339(time.time_ns() // SECOND_NS * SECOND_NS), author=asked.author,
            created_by=" ".join(record.argv), comment=asked.message,
        )  # fmt: skip
        diff_id = layer.diff_id if layer else ""
        body = derive_config(bringing.blobs.read(base.id), config=config, diff_id=diff_id, entry=entry)
        layers = [*manifest.layers, *([layer.descriptor] if layer else ())]
        stored = store_image(body, layers, blobs=bringing.blobs, references=[reference] if reference else [])
        return bringing.publish(stored)


@contextmanager
def _frozen(record: ContainerRecord, containers: Containers) -> Iterator[None]:
    try:
        containers.pause(record.id)
    except Conflict:  # it does not run, or is frozen already
        yield
        return
    try:
        yield
    finally:
        containers.unpause(record.id)


def container_config(record: ContainerRecord, base: ImageConfig) -> ImageConfig:
    """How the container was run, as an image says it."""
    spec = record.spec
    own_entrypoint = spec.entrypoint is not None
    return base.replace(
        env=record.env,
        entrypoint=spec.entrypoint if own_entrypoint else base.entrypoint,
        cmd=spec.command or (() if own_entrypoint else base.cmd),
        workdir=spec.workdir or base.workdir,
        user=record.user,
        stop_signal=spec.stop_signal or base.stop_signal,
        labels=dict(record.labels),
    )


def _base_of(record: ContainerRecord, settings: Settings) -> Image:
    try:
        return ImageStore(settings.data_root).find(record.image_id)
    except NotFound as err:
        raise NotFound(
            f"cannot commit {record.name}", why=f"its image {record.image_id} was removed",
            hint=f"pull {record.spec.image} again, or use 'cloison export'",
        ) from err  # fmt: skip


def _store_changes(record: ContainerRecord, *, settings: Settings, blobs: Blobs) -> Layer | None:
    """None when the container wrote nothing."""
    with changed_tree(record, settings=settings) as (tree, changes):
        if not changes:
            return None
        return store_layer(lambda out: write_changes(changes, out, tree=tree, pad=True), blobs=blobs)
