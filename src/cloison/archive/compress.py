"""Layers that we make, compressed: gzip, which every engine reads, by isal where it is installed.

The same bytes give the same result on one machine; another release of the compressor may give another. The image's id
does not hang on it, since it names layers by their plain bytes.
"""

from __future__ import annotations

import hashlib
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from cloison.archive.writer import Writable

    class _Deflate(Protocol):
        def compress(self, data: bytes, /) -> bytes: ...

        def flush(self) -> bytes: ...


_GZIP_BITS = 16 + zlib.MAX_WBITS
_ZLIB_LEVEL = 4
_ISAL_LEVEL = 1


class GzipWriter:
    """Passes what is written on, compressed; knows the digest of the plain bytes. ``finish`` ends the stream."""

    def __init__(self, out: Writable) -> None:
        self._out = out
        self._sha256 = hashlib.sha256()
        self._deflate = _new_deflate()

    @property
    def plain_digest(self) -> str:
        """``sha256:…`` of all that was written: a layer's diff ID."""
        return "sha256:" + self._sha256.hexdigest()

    def write(self, data: bytes, /) -> int:
        self._sha256.update(data)
        packed = self._deflate.compress(data)
        if packed:
            self._out.write(packed)
        return len(data)

    def finish(self) -> None:
        self._out.write(self._deflate.flush())


def _new_deflate() -> _Deflate:
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.compressobj(_ZLIB_LEVEL, zlib.DEFLATED, _GZIP_BITS)
    deflate: _Deflate = isal_zlib.compressobj(_ISAL_LEVEL, isal_zlib.DEFLATED, _GZIP_BITS)
    return deflate
