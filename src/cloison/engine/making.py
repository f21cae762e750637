"""Images that come from elsewhere than a registry: archives, root file systems, this machine's own programs."""

from __future__ import annotations

import time

from cloison.engine.bringing import Bringing, local_reference, this_architecture
from cloison.errors import NotFound
from cloison.model.image import ImageConfig
from cloison.oci.image import Platform, parse_config
from cloison.registry.platforms import parse_platform, render_platform, runs_on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.archive.decompress import Readable
    from cloison.images.layout import Layer, StoredImage
    from cloison.model.image import Image
    from cloison.model.settings import Settings
    from cloison.store.blobs import Blobs

URLS = ("http://", "https://")


def load(source: Readable | str, *, platform: str, settings: Settings) -> Sequence[str]:
    """`Images.load`."""
    from cloison.images.archives import read_archive, read_directory

    wanted = parse_platform(platform)
    machine = wanted.architecture if platform else this_architecture()
    loaded: list[str] = []
    with Bringing(settings) as bringing:
        bringing.is_littered = True  # an archive has files of its own beside those of its images
        if isinstance(source, str):
            found = read_directory(source, blobs=bringing.blobs, machine=machine)
        else:
            found = read_archive(source, blobs=bringing.blobs, machine=machine)
        fitting = [stored for stored in found if not platform or runs_on(_platform_of(stored), wanted)]
        if not fitting:
            known = ", ".join(sorted({render_platform(_platform_of(stored)) for stored in found}))
            raise NotFound(f"no image for platform {render_platform(wanted)} in the archive", why=f"it has {known}")
        for stored in fitting:
            image = bringing.publish(stored)
            loaded += [name.familiar for name in stored.references] or [image.id]
    return loaded


def _platform_of(stored: StoredImage) -> Platform:
    config = parse_config(stored.config)
    return Platform(os=config.os, architecture=config.architecture, variant=config.variant)


def import_rootfs(
    source: Readable | str, reference: str, *, changes: Sequence[str], message: str, platform: str, settings: Settings
) -> Image:
    """`Images.import_rootfs`."""
    from cloison.images.changes import apply_changes

    config = apply_changes(ImageConfig(), changes)
    named = local_reference(reference) if reference else None
    words = parse_platform(platform)
    with Bringing(settings) as bringing:
        layer = _layer_of(source, blobs=bringing.blobs, settings=settings)
        return bringing.publish_layer(
            layer, config, reference=named, created=_render_time(time.time()), comment=message,
            platform=words if platform else None,
        )  # fmt: skip


def _layer_of(source: Readable | str, *, blobs: Blobs, settings: Settings) -> Layer:
    from cloison.images.rootfs_import import store_directory, store_stream

    if not isinstance(source, str):
        return store_stream(source, blobs=blobs)
    if not source.startswith(URLS):
        return store_directory(source, blobs=blobs)
    from cloison.registry.download import download

    with download(source, settings=settings) as stream:
        return store_stream(stream, blobs=blobs)


def from_host(name: str, commands: Sequence[str], *, settings: Settings) -> Image:
    """`Images.from_host`."""
    from cloison.images.host import store_host_layer
    from cloison.images.host_base import HOST_CONFIG

    named = local_reference(name)
    with Bringing(settings) as bringing:
        layer, newest_ns = store_host_layer(commands, blobs=bringing.blobs)
        config = HOST_CONFIG.replace(cmd=("/bin/sh",) if "sh" in commands or not commands else (commands[0],))
        # no clock: the same programs give the same image, as old as the newest of them
        created = _render_time(newest_ns // 1_000_000_000)
        return bringing.publish_layer(layer, config, reference=named, created=created, comment="from this machine")


def _render_time(moment_s: float) -> str:
    """RFC 3339, as configurations have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment_s))
