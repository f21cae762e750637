"""`system df`: every byte of the data root, and whose it is. Sizes are blocks on disk, as du(1) counts them."""

from __future__ import annotations

import os

from cloison.engine.garbage import blobs_of, open_store
from cloison.images.records import ImageStore
from cloison.linux.trees import usage_of
from cloison.model.usage import ContainerUsage, ImageUsage, StoreUsage, VolumeUsage
from cloison.snapshots.drivers import open_snapshots
from cloison.store.blobs import Blobs
from cloison.volumes import mounts as volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cloison.model.container import ContainerRecord
    from cloison.model.image import Image
    from cloison.model.settings import Settings

_BLOCK = 512


def measure(settings: Settings, containers: Sequence[ContainerRecord]) -> StoreUsage:
    """Walk the whole store; ``containers`` are all there are, with their states."""
    open_store(settings)
    return _Account(settings, containers).usage()


def measure_images(settings: Settings) -> int:
    """Bytes of all layers and blobs, those of images that are coming in included."""
    snapshots = open_snapshots(settings)
    layers = sum(usage_of(snapshots.layer_path(layer)) for layer in snapshots.list_layers())
    return layers + usage_of(snapshots.incoming) + usage_of(f"{settings.data_root}/blobs")


class _Account:
    def __init__(self, settings: Settings, containers: Sequence[ContainerRecord]) -> None:
        self._root = settings.data_root
        self._containers = containers
        self._store = ImageStore(settings.data_root)
        self._blobs = Blobs(settings.data_root)
        self._snapshots = open_snapshots(settings)
        self._claimed: dict[str, int] = {}  # what has been counted as an object's, by path

    def usage(self) -> StoreUsage:
        images, images_bytes, reclaimable = self._images()
        containers, found_volumes = self._container_usages(), self._volume_usages()
        engine = self._engine()
        return StoreUsage(
            images=images, images_bytes=images_bytes, images_reclaimable_bytes=reclaimable, containers=containers,
            containers_bytes=sum(usage.size_bytes for usage in containers), volumes=found_volumes,
            volumes_bytes=sum(usage.size_bytes for usage in found_volumes), engine=engine,
        )  # fmt: skip

    def _count(self, path: str) -> int:
        """Bytes of a file or a tree of ours, once; what is not there is nothing."""
        if path not in self._claimed:
            self._claimed[path] = usage_of(path)
        return self._claimed[path]

    # -- images

    def _images(self) -> tuple[tuple[ImageUsage, ...], int, int]:
        names: dict[str, list[str]] = {}
        images: dict[str, Image] = {}
        for listing in self._store.list():
            images[listing.image.id] = listing.image
            names.setdefault(listing.image.id, []).extend(filter(None, [listing.reference]))
        parts = {image.id: self._parts(image) for image in images.values()}
        holders: dict[str, int] = {}
        for paths in parts.values():
            for path in paths:
                holders[path] = holders.get(path, 0) + 1
        used = [record.image_id for record in self._containers]
        usages = tuple(
            ImageUsage(
                image=image, references=tuple(names[image.id]), containers=used.count(image.id),
                size_bytes=self._total(parts[image.id]),
                shared_bytes=self._total(path for path in parts[image.id] if holders[path] > 1),
            )
            for image in images.values()
        )  # fmt: skip
        everything = {path for paths in parts.values() for path in paths} | set(self._unnamed_parts())
        kept = {path for image_id in used for path in parts.get(image_id, ())}
        kept |= {self._snapshots.layer_path(layer) for record in self._containers for layer in record.layers}
        return usages, self._total(everything), self._total(everything - kept)

    def _parts(self, image: Image) -> set[str]:
        """The files and directories that an image needs."""
        digests = blobs_of(image, self._blobs)
        return {
            *(self._blobs.path(digest) for digest in digests), *map(self._snapshots.layer_path, image.layers),
            *self._store.paths_of(image.id),
        }  # fmt: skip

    def _unnamed_parts(self) -> Iterable[str]:
        """Blobs and layers of which no image knows: on their way in, or left by a crash."""
        yield from map(self._blobs.path, self._blobs.list())
        yield from map(self._snapshots.layer_path, self._snapshots.list_layers())

    def _total(self, paths: Iterable[str]) -> int:
        return sum(map(self._count, paths))

    # -- containers and volumes

    def _container_usages(self) -> tuple[ContainerUsage, ...]:
        return tuple(
            ContainerUsage(
                container=record, volumes=len(list(volumes_of(record))),
                size_bytes=self._count(self._snapshots.home(record.id))
                + self._count(f"{self._root}/containers/{record.id}"),
            )
            for record in self._containers
        )  # fmt: skip

    def _volume_usages(self) -> tuple[VolumeUsage, ...]:
        used = [name for record in self._containers for name in volumes_of(record)]
        return tuple(
            VolumeUsage(name=name, containers=used.count(name), size_bytes=self._count(f"{self._root}/volumes/{name}"))
            for name in volumes.list_names(self._root)
        )

    # -- the rest

    def _engine(self) -> Mapping[str, int]:
        """What nobody has claimed, by its first two names; the directories themselves are "."."""
        rest: dict[str, int] = {}
        self._descend(self._root, rest, depth=0)
        return {path: size for path, size in sorted(rest.items()) if size}

    def _descend(self, path: str, rest: dict[str, int], *, depth: int) -> None:
        rest["."] = rest.get(".", 0) + os.lstat(path).st_blocks * _BLOCK
        for name in _names(path):
            below = f"{path}/{name}"
            if below in self._claimed:
                continue
            if os.path.isdir(below) and not os.path.islink(below) and self._has_claims(below):
                self._descend(below, rest, depth=depth + 1)
            else:
                shown = "/".join(below.removeprefix(self._root).split("/")[1:3])
                rest[shown] = rest.get(shown, 0) + usage_of(below)

    def _has_claims(self, path: str) -> bool:
        return any(claimed.startswith(f"{path}/") for claimed in self._claimed)


def volumes_of(record: ContainerRecord) -> Iterable[str]:
    """Names of the volumes that a container uses."""
    for request in record.spec.mounts:
        if request.type == "volume":
            yield request.source or volumes.anonymous_name(record.id, request.target)
    for target in record.volumes:
        yield volumes.anonymous_name(record.id, target)


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
