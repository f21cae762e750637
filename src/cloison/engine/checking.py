"""`system check`: whether everything in the store is what it says, and what to do where it is not.

Blobs are hashed again, layers are unpacked again from their blobs and compared with what lies there. A repair brings
back what it can from what is left; an image that cannot be brought back is removed, to be pulled again. Nothing that a
container needs is ever removed, and no file that is not known here is touched.
"""

from __future__ import annotations

import os

from cloison.engine import garbage
from cloison.engine.layer_check import LayerCheck
from cloison.errors import CloisonError
from cloison.images.layout import read_manifest
from cloison.images.records import ImageStore
from cloison.model.usage import Problem
from cloison.oci.image import chain_ids, parse_config
from cloison.snapshots import probing
from cloison.snapshots.drivers import open_snapshots
from cloison.store.blobs import Blobs
from cloison.store.containers import ContainerStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloison.model.image import Image
    from cloison.model.settings import Settings

# what the data root has at its top (docs/on-disk.md)
_KNOWN = frozenset(("blobs", "cache", "containers", "images", "names", "networks", "snapshots", "volumes"))


def check(settings: Settings, *, repair: bool, quick: bool) -> Iterator[Problem]:
    """Every problem as it is found; ``quick`` does not read blobs and layers. Raises: Unavailable (disk)."""
    garbage.open_store(settings)
    checker = _Checker(settings, repair=repair, quick=quick)
    yield from checker.run()


class _Checker:
    def __init__(self, settings: Settings, *, repair: bool, quick: bool) -> None:
        self._settings = settings
        self._root = settings.data_root
        self._repair = repair
        self._quick = quick
        self._store = ImageStore(settings.data_root)
        self._blobs = Blobs(settings.data_root)
        self._snapshots = open_snapshots(settings)
        self._containers = ContainerStore(settings)
        self._needed = {layer for record in self._containers.records() for layer in record.layers}

    def run(self) -> Iterator[Problem]:
        yield from self._damaged_files()
        if not self._quick:
            yield from self._damaged_blobs()
        layers = LayerCheck(self._settings, quick=self._quick, repair=self._repair)
        for image in {listing.image.id: listing.image for listing in self._store.list()}.values():
            yield from self._check_image(image, layers)
        yield from self._check_containers()
        yield from self._unneeded()
        yield from self._unknown()

    # -- files of ours that cannot be read

    def _damaged_files(self) -> Iterator[Problem]:
        for path, why in self._store.damaged():
            repaired = ""
            if self._repair:
                with self._store.lock():
                    os.unlink(path)
                repaired = "removed: pull or load the image again"
            yield Problem(thing=f"file {path.removeprefix(self._root + '/')}", what=why, repaired=repaired)

    def _damaged_blobs(self) -> Iterator[Problem]:
        for digest in sorted(self._blobs.list()):
            if self._blobs.is_whole(digest):
                continue
            repaired = ""
            if self._repair:
                self._blobs.remove(digest)
                repaired = "removed"
            yield Problem(thing=f"blob {digest}", what="its content has changed", repaired=repaired)

    # -- images

    def _check_image(self, image: Image, layers: LayerCheck) -> Iterator[Problem]:
        problems = list(self._image_problems(image, layers))
        for problem in problems:
            if problem.thing.startswith("image ") and self._repair:
                problem = problem.replace(repaired=self._forget(image))
            yield problem

    def _image_problems(self, image: Image, layers: LayerCheck) -> Iterator[Problem]:
        name = f"image {self._name(image)}"
        try:
            manifest, _body = read_manifest(image, self._blobs)
            document = parse_config(self._blobs.read(image.id))
        except CloisonError as error:
            yield Problem(thing=name, what=str(error))
            return
        if chain_ids(document.diff_ids) != image.layers or len(manifest.layers) != len(image.layers):
            yield Problem(thing=name, what="its record, its manifest and its configuration differ in layers")
            return
        if not image.repo_digests:  # else they can be fetched again
            for layer in manifest.layers:
                if not self._blobs.has(layer.digest):
                    what = f"its layer {layer.digest} cannot be saved or pushed: the blob is missing"
                    yield Problem(thing=name, what=what)
        for i, descriptor in enumerate(manifest.layers):
            yield from layers.check(image, i, blob=descriptor.digest, name=name)

    def _name(self, image: Image) -> str:
        references = self._store.references_of(image.id)
        return references[0].familiar if references else image.id.removeprefix("sha256:")[:12]

    def _forget(self, image: Image) -> str:
        """Take the image away, so that it can be brought anew; containers keep their layers."""
        with self._store.lock():
            try:
                self._store.remove(image.id, force=True)
            except CloisonError:
                return ""
        return "the image was removed: pull or load it again"

    # -- containers

    def _check_containers(self) -> Iterator[Problem]:
        for container_id in sorted(self._containers.ids()):
            try:
                record = self._containers.load(container_id)
            except CloisonError as error:
                if not self._containers.operation_runs(container_id):
                    yield Problem(thing=f"container {container_id[:12]}", what=str(error))
                continue
            missing = [layer for layer in record.layers if not self._snapshots.has(layer)]
            if missing:
                yield Problem(thing=f"container {record.name}", what=f"its layer {missing[0]} is missing")
            if not os.path.isdir(self._snapshots.home(container_id)):
                yield Problem(thing=f"container {record.name}", what="what it wrote is missing")

    # -- what nobody needs

    def _unneeded(self) -> Iterator[Problem]:
        """Does not look while something is coming in: its parts belong to nobody yet."""
        nothing_comes_in = self._store.no_incoming()
        if nothing_comes_in is None:
            return
        with nothing_comes_in:
            found = list(self._unnamed())
        if found and self._repair:
            garbage.collect(self._settings)
        for thing in found:
            yield Problem(thing=thing, what="nobody needs it", repaired="removed" if self._repair else "")

    def _unnamed(self) -> Iterator[str]:
        images = {listing.image.id: listing.image for listing in self._store.list()}.values()
        layers = self._needed | {layer for image in images for layer in image.layers}
        yield from (f"layer {layer}" for layer in sorted(set(self._snapshots.list_layers()) - layers))
        needed = {digest for image in images for digest in garbage.blobs_of(image, self._blobs)}
        yield from (f"blob {digest}" for digest in sorted(set(self._blobs.list()) - needed))
        for directory in (self._blobs.incoming, self._snapshots.incoming):
            yield from (f"file {directory.removeprefix(self._root + '/')}/{name}" for name in _names(directory))

    def _unknown(self) -> Iterator[Problem]:
        probing.sweep(self._root)
        for name in sorted(set(_names(self._root)) - _KNOWN):
            yield Problem(thing=f"file {name}", what="it is not ours; it was left alone")


def _names(path: str) -> Sequence[str]:
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []
