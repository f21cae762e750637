"""What the store holds, in bytes of disk, and what of it could go: the nouns of `system df`, prune and check."""

from __future__ import annotations

from cloison.model.container import ContainerRecord
from cloison.model.image import Image
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar


class ImageUsage(Record):
    """One image: unpacked layers, compressed blobs and records."""

    image: Image
    references: tuple[str, ...] = ()
    containers: int = 0  # how many were made from it, running or not
    size_bytes: int = 0
    shared_bytes: int = 0  # of these, what other images have, too

    NESTED: ClassVar[Mapping[str, Any]] = {"image": Image}


class ContainerUsage(Record):
    """One container: what it wrote, its log and its record."""

    container: ContainerRecord
    size_bytes: int = 0
    volumes: int = 0

    NESTED: ClassVar[Mapping[str, Any]] = {"container": ContainerRecord}


class VolumeUsage(Record):
    name: str
    containers: int = 0
    size_bytes: int = 0


class StoreUsage(Record):
    """The whole data root; the four totals are all of its bytes, as du(1) counts them."""

    images: tuple[ImageUsage, ...] = ()
    containers: tuple[ContainerUsage, ...] = ()
    volumes: tuple[VolumeUsage, ...] = ()
    images_bytes: int = 0  # each shared layer once
    images_reclaimable_bytes: int = 0
    containers_bytes: int = 0
    volumes_bytes: int = 0
    engine: Mapping[str, int] = {}  # what is no object's: path below the data root, "." for the directories -> bytes

    NESTED: ClassVar[Mapping[str, Any]] = {"images": ImageUsage, "containers": ContainerUsage, "volumes": VolumeUsage}

    @property
    def engine_bytes(self) -> int:
        return sum(self.engine.values())

    @property
    def total_bytes(self) -> int:
        return self.images_bytes + self.containers_bytes + self.volumes_bytes + self.engine_bytes


class Pruned(Record):
    """What a prune took away, in docker's words: ``untagged: …``, ``deleted: …``, or ids."""

    removed: tuple[str, ...] = ()
    reclaimed_bytes: int = 0


class SystemPruned(Record):
    """What `system prune` took away, kind by kind."""

    containers: Pruned = Pruned()
    volumes: Pruned = Pruned()
    images: Pruned = Pruned()

    NESTED: ClassVar[Mapping[str, Any]] = {"containers": Pruned, "volumes": Pruned, "images": Pruned}

    @property
    def reclaimed_bytes(self) -> int:
        return self.containers.reclaimed_bytes + self.volumes.reclaimed_bytes + self.images.reclaimed_bytes


class Problem(Record):
    """One thing that is not as it should be in the store."""

    thing: str  # "blob sha256:…", "image app:1", "layer sha256:…", "container web", "file names/x"
    what: str
    repaired: str = ""  # what was done about it; "" is nothing
