"""One unpacked layer against the blob that it came from; put right from that blob where it differs."""

from __future__ import annotations

import os

from cloison.archive.fingerprint import differences
from cloison.engine.garbage import uses
from cloison.errors import CloisonError
from cloison.images.records import ImageStore
from cloison.model.usage import Problem
from cloison.snapshots.drivers import open_snapshots
from cloison.store.blobs import Blobs
from cloison.store.containers import ContainerStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloison.model.image import Image
    from cloison.model.settings import Settings
    from cloison.snapshots.snapshotter import StagedLayer

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Blob:
    """A stored blob as a stream."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int, /) -> bytes:
        return os.read(self._fd, size)


class LayerCheck:
    """Looks at each layer once, whatever number of images have it."""

    def __init__(self, settings: Settings, *, quick: bool, repair: bool) -> None:
        self._snapshots = open_snapshots(settings)
        self._blobs = Blobs(settings.data_root)
        self._containers = ContainerStore(settings)
        self._settings = settings
        self._quick = quick
        self._repair = repair
        self._seen: set[str] = set()

    def check(self, image: Image, i: int, *, blob: str, name: str) -> Iterator[Problem]:
        """The layer ``i`` of an image, whose compressed form is ``blob``."""
        chain = image.layers[i]
        if chain in self._seen:
            return
        self._seen.add(chain)
        has_blob = self._blobs.has(blob)
        if not self._snapshots.has(chain):
            what = "it is missing"
        elif self._quick or not has_blob:
            return
        else:
            what = ""
        if not has_blob:
            yield Problem(thing=name, what=f"its layer {chain} is missing")
            return
        try:
            staged = self._stage(blob)
        except CloisonError as error:
            yield Problem(thing=name, what=f"its layer {chain} cannot be checked: {error}")
            return
        try:
            what = what or self._difference(staged, chain, image.layers[:i])
            if what:
                repaired = self._replace(staged, chain, image.layers[:i]) if self._repair else ""
                yield Problem(thing=f"layer {chain}", what=what, repaired=repaired)
        finally:
            staged.discard()

    def _stage(self, blob: str) -> StagedLayer:
        fd = self._blobs.open(blob)
        try:
            return self._snapshots.stage(_Blob(fd))
        finally:
            os.close(fd)

    def _difference(self, staged: StagedLayer, chain: str, below: tuple[str, ...]) -> str:
        """What is wrong with it, in words; "" is nothing."""
        staged.adopt(below)
        fd = os.open(self._snapshots.layer_path(chain), _DIRECTORY)
        try:
            first = next(iter(differences(staged.fd, fd, without_times=staged.applied.implied)), None)
        except OSError as err:
            return f"it cannot be read: {os.strerror(err.errno or 0).lower()}"
        finally:
            os.close(fd)
        return "" if first is None else f"/{os.fsdecode(first)} is not as it was unpacked"

    def _replace(self, staged: StagedLayer, chain: str, below: tuple[str, ...]) -> str:
        """Not under a container that runs, or a mounted image: what is open there would vanish."""
        for use in uses(self._settings):
            if use.mounted and chain in ImageStore(self._settings.data_root).find(use.image_id).layers:
                return ""
        for record in self._containers.records():
            if chain in record.layers and self._containers.monitor_lives(record.id):
                return ""
        self._snapshots.remove_layer(chain)
        staged.commit(chain, below=below)
        self._blobs.sync()
        return "unpacked again"
