"""Manifests and blobs from one place to another, bytes and digests as they are: push, copy, and what is made of them.

    copy(source, target, name="app:1", every_platform=True)

A place is a `Source`, a `Target`, or both: a registry's repository, the local store, a directory, an archive.
"""

from __future__ import annotations

import hashlib
import os
from functools import partial

from cloison.errors import InvalidArgument
from cloison.images.crew import Crew
from cloison.images.progress import NoProgress
from cloison.model.record import Record
from cloison.oci.image import Index, parse_manifest
from cloison.registry.platforms import choose, parse_platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from cloison.images.progress import Progress
    from cloison.oci.image import Descriptor, Manifest
    from cloison.registry.client import ManifestAnswer
else:
    Protocol = object

_MAX_DEPTH = 3
_PIECE_BYTES = 1 << 20


class Source(Protocol):
    """Where an image is."""

    def manifest(self, digest: str = "") -> ManifestAnswer:
        """The manifest or index of this digest, verified; "" is the one that the place is about."""

    def blob(self, descriptor: Descriptor, *, offset: int = 0) -> Iterator[bytes]:
        """A blob's bytes from an offset on, not verified."""

    def abort(self) -> None:
        """End all reading, from any thread."""


class Target(Protocol):
    """Where an image shall be."""

    parallel: int  # how many blobs it takes at once

    def begin(self, contents: Contents) -> None:
        """Hear of all that will come."""

    def put_blob(self, descriptor: Descriptor, source: Source, *, progress: Progress) -> str:
        """Take one blob; what became of it, for people ("Pushed", "Already exists")."""

    def put_manifest(self, answer: ManifestAnswer, *, is_top: bool) -> None:
        """Take a manifest whose blobs and members are there; the top one comes last, under the image's name."""

    def abort(self) -> None:
        """End all writing, from any thread."""


class Contents(Record):
    """An image as it will be copied. ``manifests`` are in the order to be written: members first, the top last."""

    manifests: tuple[ManifestAnswer, ...]
    blobs: tuple[Descriptor, ...]
    configs: frozenset[str] = frozenset()  # digests of those blobs that are configurations

    @property
    def top(self) -> ManifestAnswer:
        return self.manifests[-1]


def pieces(fd: int, offset: int) -> Iterator[bytes]:
    """A file's bytes from an offset on; the descriptor is closed at the end. Raises: OSError."""
    try:
        while piece := os.pread(fd, _PIECE_BYTES, offset):
            offset += len(piece)
            yield piece
    finally:
        os.close(fd)


def copy(
    source: Source, target: Target, *, name: str, platform: str = "", every_platform: bool = False, form: str = "",
    progress: Progress | None = None,
) -> ManifestAnswer:  # fmt: skip
    """Copy what ``source`` is about: all of an index, or one platform's manifest alone ("" is this machine's).

    ``form`` is one of `cloison.images.conversion.FORMS`, "" leaves manifests as they are. Gives back what the target
    now has under its name. Raises: NotFound, Denied, Unavailable, InvalidArgument, Unsupported.
    """
    contents = look(source, name=name, platform=platform, every_platform=every_platform)
    if form:
        from cloison.images.conversion import convert

        contents = contents.replace(manifests=convert(contents.manifests, form))
    news = progress or NoProgress()
    target.begin(contents)

    def stop() -> None:
        source.abort()
        target.abort()

    jobs = [partial(_copy_blob, blob, source, target, contents, progress=news) for blob in contents.blobs]
    Crew(jobs, on_stop=stop).run(target.parallel)
    for answer in contents.manifests:
        target.put_manifest(answer, is_top=answer is contents.top)
    return contents.top


def _copy_blob(
    descriptor: Descriptor, source: Source, target: Target, contents: Contents, *, progress: Progress
) -> None:
    shown: Progress = NoProgress() if descriptor.digest in contents.configs else progress
    done = target.put_blob(descriptor, source, progress=shown)
    shown.finish(short(descriptor.digest), done)


def look(source: Source, *, name: str, platform: str = "", every_platform: bool = False) -> Contents:
    """All that belongs to an image, without its blobs' bytes. Raises: as `copy`."""
    top = source.manifest()
    document = parse_manifest(top.body, media_type=top.media_type)
    if isinstance(document, Index) and not every_platform:
        top, document = _choose(source, document, platform=platform, name=name)
    manifests: list[ManifestAnswer] = []
    blobs: dict[str, Descriptor] = {}
    configs: set[str] = set()
    _gather(source, top, document, manifests=manifests, blobs=blobs, configs=configs, depth=0)
    return Contents(manifests=tuple(manifests), blobs=tuple(blobs.values()), configs=frozenset(configs))


def _choose(source: Source, index: Index, *, platform: str, name: str) -> tuple[ManifestAnswer, Manifest | Index]:
    wanted = parse_platform(platform)
    document: Manifest | Index = index
    for _depth in range(_MAX_DEPTH):
        if not isinstance(document, Index):
            break
        member = choose(document.manifests, wanted, name=name)
        answer = source.manifest(member.digest)
        document = parse_manifest(answer.body, media_type=answer.media_type)
    if isinstance(document, Index):
        raise InvalidArgument(f"cannot copy {name}", why="its indexes are nested too deeply")
    return answer, document


def _gather(
    source: Source, answer: ManifestAnswer, document: Manifest | Index, *, manifests: list[ManifestAnswer],
    blobs: dict[str, Descriptor], configs: set[str], depth: int,
) -> None:  # fmt: skip
    if isinstance(document, Index):
        if depth >= _MAX_DEPTH:
            raise InvalidArgument("cannot copy the image", why="its indexes are nested too deeply")
        for member in document.manifests:
            if all(known.digest != member.digest for known in manifests):
                inner = source.manifest(member.digest)
                parsed = parse_manifest(inner.body, media_type=inner.media_type)
                _gather(source, inner, parsed, manifests=manifests, blobs=blobs, configs=configs, depth=depth + 1)
    else:
        configs.add(document.config.digest)
        blobs.update({blob.digest: blob for blob in (document.config, *document.layers)})
    manifests.append(answer)


class Verified:
    """A blob that is hashed on its way, once, however often its reader begins again at an earlier byte."""

    def __init__(self, source: Source, descriptor: Descriptor) -> None:
        self._source = source
        self._descriptor = descriptor
        self._hash = hashlib.new(descriptor.digest.partition(":")[0])
        self._hashed = 0

    def open_at(self, offset: int) -> Iterator[bytes]:
        """The bytes from ``offset``, which was reached before. Raises: InvalidArgument at the end of another blob."""
        position = offset
        for piece in self._source.blob(self._descriptor, offset=offset):
            fresh = piece[max(0, self._hashed - position) :]
            position += len(piece)
            self._hash.update(fresh)
            self._hashed += len(fresh)
            if self._hashed >= self._descriptor.size:
                self._check()
            yield piece
        if self._hashed < self._descriptor.size or not self._descriptor.size:
            self._check()

    def _check(self) -> None:
        found = f"{self._descriptor.digest.partition(':')[0]}:{self._hash.hexdigest()}"
        if self._hashed != self._descriptor.size or found != self._descriptor.digest:
            why = f"its content is {found}, {self._hashed} bytes"
            raise InvalidArgument(f"blob {self._descriptor.digest} does not match", why=why)


def watched(pieces: Iterator[bytes], item: str, *, progress: Progress) -> Iterator[bytes]:
    """The same pieces, while progress hears of them."""
    for piece in pieces:
        yield piece
        progress.advance(item, len(piece))


def short(digest: str) -> str:
    """The first 12 hex digits, as progress shows a layer."""
    return digest.partition(":")[2][:12]
