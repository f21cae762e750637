"""Layers as bytes: gzip, zstd, xz, bzip2 or plain, told by their first bytes, whatever the media type claims.

Concatenated members (gzip) and frames (zstd) are one stream; what follows the last is ignored, by this reader as by
gzip(1). A stream that ends early is an error. gzip is inflated by isal where that is installed, else by zlib-ng, else
by zlib: one core does some 6 : 5 : 1.
"""

from __future__ import annotations

import importlib
import zlib

from cloison.archive.budget import DEFAULT_LIMITS, Limits, bad_archive
from cloison.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Protocol

    class Readable(Protocol):
        """A source of bytes; empty means the end."""

        def read(self, size: int, /) -> bytes: ...

    class _Decoder(Protocol):
        """One member or frame; bz2, lzma and zstd have this shape already."""

        @property
        def eof(self) -> bool: ...

        @property
        def needs_input(self) -> bool: ...

        @property
        def unused_data(self) -> bytes: ...

        def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


CHUNK = 1 << 18
_MAGIC_BYTES = 6
_MEMORY_LIMIT = 256 << 20

_GZIP = b"\x1f\x8b\x08"
_ZSTD = b"\x28\xb5\x2f\xfd"
_XZ = b"\xfd7zXZ\0"
_BZIP2 = b"BZh"


def sniff(head: bytes) -> str:
    """``gzip``, ``zstd``, ``xz``, ``bzip2``, or ``""`` for anything else."""
    for magic, name in ((_GZIP, "gzip"), (_ZSTD, "zstd"), (_XZ, "xz"), (_BZIP2, "bzip2")):
        if head.startswith(magic):
            return name
    # a skippable frame, 0x184D2A50 to 0x184D2A5F, little endian (RFC 8878, 3.1.2)
    return "zstd" if len(head) >= 4 and head[0] & 0xF0 == 0x50 and head[1:4] == b"\x2a\x4d\x18" else ""


def decompress(stream: Readable, *, limits: Limits = DEFAULT_LIMITS) -> Readable:
    """The stream's plain bytes, with the budget of ``limits``. Raises (also while reading): InvalidArgument."""
    head = b""
    while len(head) < _MAGIC_BYTES and (piece := stream.read(CHUNK)):
        head += piece
    kind = sniff(head)
    source = _Pushed(stream, head)
    return _Inflating(source, kind=kind, limits=limits) if kind else source


class _Pushed:
    """A stream whose first bytes have been looked at."""

    def __init__(self, stream: Readable, head: bytes) -> None:
        self._stream = stream
        self._head = head

    def read(self, size: int, /) -> bytes:
        if not self._head:
            return self._stream.read(size)
        piece, self._head = self._head[:size], self._head[size:]
        return piece


class _Inflating:
    def __init__(self, stream: Readable, *, kind: str, limits: Limits) -> None:
        self._stream = stream
        self._kind = kind
        self._limits = limits
        self._decoder: _Decoder | None = _new_decoder(kind, limits)
        self._input = b""
        self._fed = 0
        self._given = 0

    def read(self, size: int, /) -> bytes:
        while self._decoder is not None:
            try:
                piece = self._step(self._decoder, size)
            except (OSError, EOFError, ValueError, _decoder_errors(self._kind)) as err:
                raise bad_archive(f"damaged {self._kind} data ({err})") from err
            if self._decoder.eof:
                self._next_member(self._decoder.unused_data)
            if piece:
                self._given += len(piece)
                self._check_budget()
                return piece
        return b""

    def _step(self, decoder: _Decoder, size: int) -> bytes:
        data, self._input = self._input, b""
        if not data and decoder.needs_input:
            data = self._stream.read(CHUNK)
            if not data:
                raise EOFError("it ends too early")
            self._fed += len(data)
        return decoder.decompress(data, size)

    def _next_member(self, rest: bytes) -> None:
        """A further member of the same kind continues the stream; anything else is ignored."""
        while len(rest) < _MAGIC_BYTES and (piece := self._stream.read(CHUNK)):
            rest += piece
            self._fed += len(piece)
        self._input = rest
        if sniff(rest) == self._kind:
            self._decoder = _new_decoder(self._kind, self._limits)
            return
        self._decoder = None
        while self._stream.read(CHUNK):  # a digest is taken over all of the compressed bytes
            pass

    def _check_budget(self) -> None:
        limits = self._limits
        if self._given > limits.total_bytes:
            raise bad_archive(f"more than {limits.total_bytes} bytes after decompression")
        if self._given > limits.ratio_after_bytes and self._given > self._fed * limits.ratio:
            raise bad_archive(f"{self._fed} compressed bytes became {self._given}, more than {limits.ratio} to 1")


def _decoder_errors(kind: str) -> type[Exception]:
    """The exception of a decoder's own module: it is loaded once its kind is met."""
    if kind == "zstd":
        error: type[Exception] = _zstd_module().ZstdError
        return error
    if kind == "xz":
        import lzma

        return lzma.LZMAError
    return _gzip_error()


def _new_decoder(kind: str, limits: Limits) -> _Decoder:
    if kind == "gzip":
        return _new_gzip_member()
    if kind == "zstd":
        zstd = _zstd_module()
        options = {zstd.DecompressionParameter.window_log_max: limits.window_log}
        frame: _Decoder = zstd.ZstdDecompressor(options=options)
        return frame
    if kind == "xz":
        import lzma

        return lzma.LZMADecompressor(memlimit=_MEMORY_LIMIT)
    import bz2

    return bz2.BZ2Decompressor()


def _zstd_module() -> ModuleType:
    try:
        return importlib.import_module("compression.zstd")  # Python 3.14
    except ImportError:
        pass
    try:
        return importlib.import_module("backports.zstd")
    except ImportError:
        raise Unsupported(
            "cannot read zstd data", why="no decoder is installed", hint="pip install backports.zstd"
        ) from None


def _gzip_error() -> type[Exception]:
    try:
        error: type[Exception] = importlib.import_module("isal.igzip_lib").IsalError
    except ImportError:
        error = zlib_module().error
    return error


def zlib_module() -> ModuleType:
    """zlib-ng's module where it is installed: zlib's own interface."""
    try:
        return importlib.import_module("zlib_ng.zlib_ng")
    except ImportError:
        return zlib


def _new_gzip_member() -> _Decoder:
    try:
        from isal import igzip_lib
    except ImportError:
        return ZlibMember(zlib_module())
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


class ZlibMember:
    """zlib's object, or zlib-ng's, in the shape that the other decoders have."""

    def __init__(self, module: ModuleType) -> None:
        self._inflate = module.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return bool(self._inflate.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inflate.unused_data)

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        tail = self._inflate.unconsumed_tail
        piece: bytes = self._inflate.decompress(tail + data if tail else data, max_length)
        # a full buffer may hide more output than the input left over shows
        self.needs_input = not self._inflate.unconsumed_tail and len(piece) < max_length
        return piece
