"""From layers to an image that can run: unpacked side by side while they arrive, checked, committed, published.

Nothing is visible before everything is right, every digest verified, and on disk: one syncfs brings blobs and unpacked
layers to the disk, then layers appear under their chain IDs by rename, base first, and only then the record names them.
So a layer that can be seen is whole, even after a power cut.
"""

from __future__ import annotations

import os
import threading
from contextlib import nullcontext
from functools import partial

from cloison.errors import InvalidArgument, Unsupported
from cloison.images.crew import Crew
from cloison.model.image import Image
from cloison.oci.image import chain_ids, parse_config
from cloison.snapshots.drivers import open_snapshots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from typing import Protocol

    from cloison.images.layout import StoredImage
    from cloison.images.progress import Progress
    from cloison.images.records import ImageStore
    from cloison.model.reference import Reference
    from cloison.model.settings import Settings
    from cloison.oci.image import ConfigDocument, Descriptor
    from cloison.snapshots.snapshotter import Snapshotter, StagedLayer
    from cloison.store.blobs import Blobs
else:
    Protocol = object

_MAX_WORKERS = 4


class LayerStream(Protocol):
    """One layer's bytes, compressed or not."""

    @property
    def is_whole(self) -> bool:
        """Whether all of it is here."""

    def read(self, size: int, /) -> bytes:
        """b"" is the end: digest and size were right then."""

    def reads_anew(self) -> bool:
        """After what was read made no sense: whether to open another. Raises: what is wrong, where that is known."""

    def close(self) -> None:
        """No reading after this."""


class LayerSource(Protocol):
    """Where an image's layers come from."""

    def open(self, descriptor: Descriptor, /) -> LayerStream:
        """One of them, at once, whether it is here or not."""

    def wait(self) -> None:
        """Until all of them are in the store. Raises: why one is not."""

    def stop(self) -> None:
        """No more is wanted."""


class StoredLayers(LayerSource):
    """Layers that the store has."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def open(self, descriptor: Descriptor, /) -> LayerStream:
        return _StoredLayer(self._blobs, descriptor.digest)

    def wait(self) -> None:
        pass

    def stop(self) -> None:
        pass


class _StoredLayer(LayerStream):
    is_whole = True

    def __init__(self, blobs: Blobs, digest: str) -> None:
        self._blobs = blobs
        self._digest = digest
        self._fd = blobs.open(digest)

    def read(self, size: int, /) -> bytes:
        return os.read(self._fd, size)

    def reads_anew(self) -> bool:
        self._blobs.check(self._digest)  # it was right when it came in: is it still?
        return False

    def close(self) -> None:
        os.close(self._fd)


def publish(
    stored: StoredImage, source: LayerSource, *, settings: Settings, blobs: Blobs, store: ImageStore,
    progress: Progress, repo_digests: tuple[str, ...] = (),
) -> Image:  # fmt: skip
    """Unpack what is missing and make the image visible under its references (dangling without any).

    Raises: InvalidArgument when a layer is not what the configuration says; Unavailable, Denied: nothing is visible.
    """
    document = parse_config(stored.config)
    if len(document.diff_ids) != len(stored.layers):
        raise InvalidArgument("invalid image", why="its configuration and its manifest differ in layers")
    unpacker = _Unpacker(document, stored.layers, source, settings=settings, progress=progress)
    with unpacker.claim(), unpacker:
        unpacker.stage()
        source.wait()
        blobs.sync()
        fresh = unpacker.commit()
    sizes = _layer_sizes(unpacker.chains, fresh, store=store, snapshots=unpacker.snapshots)
    image = Image(
        id=stored.config_digest, digest=stored.manifest_digest, config=document.config, layers=unpacker.chains,
        diff_ids=tuple(document.diff_ids), architecture=document.architecture, os=document.os,
        variant=document.variant, created=document.created, author=document.author, size_bytes=sum(sizes),
        layer_sizes=sizes, repo_digests=repo_digests,
    )  # fmt: skip
    _record(image, stored.references, store=store)
    return image


def _record(image: Image, references: Sequence[Reference], *, store: ImageStore) -> None:
    for reference in references or (None,):
        store.put(image, reference)


class _Unpacker:
    """The layers that are not there yet, each unpacked by a thread of its own (they are independent)."""

    def __init__(
        self,
        document: ConfigDocument,
        layers: Sequence[Descriptor],
        source: LayerSource,
        *,
        settings: Settings,
        progress: Progress,
    ) -> None:
        self.chains = chain_ids(document.diff_ids)
        self.snapshots = open_snapshots(settings)
        self._diff_ids = document.diff_ids
        self._layers = layers
        self._source = source
        self.progress = progress
        self._staged: dict[int, StagedLayer] = {}
        self._is_open = True
        self._lock = threading.Lock()
        self._crew = self._new_crew()

    def _new_crew(self) -> Crew:
        return Crew([partial(self._stage, i) for i in self._missing()], on_stop=self._source.stop)

    def _missing(self) -> list[int]:
        return [i for i, chain in enumerate(self.chains) if not self.snapshots.has(chain)]

    def claim(self) -> AbstractContextManager[object]:
        """Wait for whoever unpacks the lowest layer that is missing, and take only what is missing then.

        Whoever needs a higher layer of the same chain needs this one, too: it alone has to be claimed.
        """
        while missing := self._missing():
            claim = self.snapshots.claim(self.chains[missing[0]])
            if self._missing()[:1] == missing[:1]:
                self._crew = self._new_crew()
                return claim
            claim.release()
        self._crew = self._new_crew()
        return nullcontext()

    def __enter__(self) -> _Unpacker:
        return self

    def __exit__(self, *_failure: object) -> None:
        """What was not committed is thrown away; what a late thread still brings it throws away itself."""
        with self._lock:
            self._is_open = False
        for staged in self._staged.values():
            staged.discard()

    def commit(self) -> dict[str, int]:
        """Make the staged layers visible, base first, since a layer takes looks from those below; chain ID -> bytes."""
        fresh = {}
        for i in sorted(self._staged):
            staged = self._staged[i]
            staged.commit(self.chains[i], below=self.chains[:i])
            fresh[self.chains[i]] = staged.applied.size_bytes
            self.progress.finish(_short(self._layers[i].digest), "Pull complete")
        if fresh:
            self.snapshots.sync()
        return fresh

    def stage(self) -> None:
        """Unpack all missing layers, unseen. Raises: the first failure, after all threads have ended."""
        self._crew.run(min(os.cpu_count() or 1, _MAX_WORKERS))

    def _stage(self, i: int) -> None:
        layer = self._layers[i]
        while True:
            stream = self._source.open(layer)
            try:
                self._unpack(i, stream)
                return
            except (InvalidArgument, Unsupported) as err:
                if err is self._crew.failure or not stream.reads_anew():
                    raise
            finally:
                stream.close()

    def _unpack(self, i: int, stream: LayerStream) -> None:
        layer = self._layers[i]
        staged = self.snapshots.stage(_Watched(stream, layer, owner=self))
        if staged.applied.diff_id != self._diff_ids[i]:
            staged.discard()
            raise InvalidArgument(
                f"layer {layer.digest} does not match",
                why=f"it unpacks to {staged.applied.diff_id}, not {self._diff_ids[i]}",
            )
        self._keep(i, staged)

    def _keep(self, i: int, staged: StagedLayer) -> None:
        with self._lock:
            wanted = self._is_open
            if wanted:
                self._staged[i] = staged
        if not wanted:  # the caller was interrupted and has gone
            staged.discard()

    def check(self) -> None:
        """Raises: the failure of another layer, so that this one stops too."""
        self._crew.check()


class _Watched:
    """A layer's stream that tells how much of it was read, once all of it has come."""

    def __init__(self, stream: LayerStream, layer: Descriptor, *, owner: _Unpacker) -> None:
        self._stream = stream
        self._layer = layer
        self._owner = owner
        self._untold = 0
        self._is_shown = False

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._owner.check()
        self._untold += len(data)
        if self._stream.is_whole:
            self._tell()
        return data

    def _tell(self) -> None:
        item, progress = _short(self._layer.digest), self._owner.progress
        if not self._is_shown:
            progress.start(item, self._layer.size, "Extracting")
            self._is_shown = True
        progress.advance(item, self._untold)
        self._untold = 0


def _layer_sizes(
    chains: Sequence[str], fresh: dict[str, int], *, store: ImageStore, snapshots: Snapshotter
) -> tuple[int, ...]:
    """Unpacked bytes of each layer: counted a moment ago, known from another image, or measured."""
    if len(fresh) < len(chains):
        for listing in store.list():
            fresh = dict(zip(listing.image.layers, listing.image.layer_sizes, strict=False)) | fresh
    return tuple(
        fresh[chain] if chain in fresh else snapshots.layer_size(chain, below=chains[:i])
        for i, chain in enumerate(chains)
    )


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12]
