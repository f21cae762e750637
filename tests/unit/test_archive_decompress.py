"""Compressed streams: one result whatever the decoder and the pieces, an error for damage, a bound for bombs."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import sys
from collections.abc import Callable

import pytest

from cloison.archive.budget import Limits
from cloison.archive.decompress import decompress, sniff, zlib_module
from cloison.errors import InvalidArgument

zstd = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

PLAIN = b"".join(b"line %d of something to compress\n" % i for i in range(40_000))
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "zstd": zstd.compress, "xz": lzma.compress, "bzip2": bz2.compress, "": bytes,
}  # fmt: skip
KINDS = [kind for kind in PACK if kind]


class Pieces:
    """A stream that gives at most ``size`` bytes at once."""

    def __init__(self, data: bytes, size: int) -> None:
        self.stream = io.BytesIO(data)
        self.size = size

    def read(self, size: int, /) -> bytes:
        return self.stream.read(min(size, self.size))


def unpack(data: bytes, *, piece: int = 1 << 20, limits: Limits | None = None, read: int = 1 << 18) -> bytes:
    stream = decompress(Pieces(data, piece), limits=limits or Limits())
    result = []
    while chunk := stream.read(read):
        result.append(chunk)
    return b"".join(result)


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("piece", [1000, 4099, 1 << 20])
@pytest.mark.parametrize("read", [777, 1 << 18])
def test_every_kind_is_told_by_its_first_bytes_and_unpacked(kind: str, piece: int, read: int) -> None:
    assert sniff(PACK[kind](PLAIN)) == kind
    assert unpack(PACK[kind](PLAIN), piece=piece, read=read) == PLAIN


@pytest.mark.parametrize("kind", PACK)
def test_a_stream_may_come_byte_by_byte(kind: str) -> None:
    data = PACK[kind](PLAIN[:5000])
    assert unpack(data, piece=1) == PLAIN[:5000]


@pytest.mark.parametrize("missing", [["isal"], ["isal", "zlib_ng"]], ids=["zlib-ng", "zlib"])
def test_without_isal_zlib_ng_or_zlib_reads_the_same(monkeypatch: pytest.MonkeyPatch, missing: list[str]) -> None:
    for name in ("isal", "isal.igzip_lib", "zlib_ng", "zlib_ng.zlib_ng"):
        if name.partition(".")[0] in missing:
            monkeypatch.setitem(sys.modules, name, None)
    assert zlib_module() is importlib.import_module("zlib" if "zlib_ng" in missing else "zlib_ng.zlib_ng")
    for piece in (1, 4096, 1 << 20):
        data = PLAIN[: 5000 if piece == 1 else None]
        assert unpack(gzip.compress(data) * 2, piece=piece, read=4096) == data * 2
    for damaged in (gzip.compress(PLAIN)[:-9], gzip.compress(PLAIN)[:100] + b"x" * 100):
        with pytest.raises(InvalidArgument, match="gzip"):
            unpack(damaged)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("piece", [7, 1 << 20])
def test_concatenated_members_are_one_stream(kind: str, piece: int) -> None:
    pack = PACK[kind]
    assert unpack(pack(b"one ") + pack(b"") + pack(b"two"), piece=piece) == b"one two"


def test_a_skippable_zstd_frame_is_skipped() -> None:
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"extra"
    assert unpack(skippable + zstd.compress(b"one")) == b"one"
    assert unpack(zstd.compress(b"one") + skippable + zstd.compress(b"two")) == b"onetwo"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("garbage", [b"\0" * 600, b"garbage", b"\x1f"])
def test_what_follows_the_last_member_is_ignored(kind: str, garbage: bytes) -> None:
    assert unpack(PACK[kind](b"data") + garbage) == b"data"
    assert unpack(PACK[kind](b"data") + garbage, piece=1) == b"data"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [7, 100, -1, -5])
def test_a_stream_that_ends_early_is_an_error(kind: str, cut: int) -> None:
    with pytest.raises(InvalidArgument, match=kind):
        unpack(PACK[kind](PLAIN)[:cut])


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_stream_is_an_error(kind: str) -> None:
    # a frame with a checksum, where the format leaves it to the writer
    options = {"options": {zstd.CompressionParameter.checksum_flag: 1}} if kind == "zstd" else {}
    data = bytearray(zstd.compress(PLAIN, **options) if kind == "zstd" else PACK[kind](PLAIN))
    data[len(data) // 2] ^= 0x55
    with pytest.raises(InvalidArgument, match=kind):
        unpack(bytes(data))


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_bomb_stops_at_the_ratio(kind: str) -> None:
    limits = Limits(ratio=100, ratio_after_bytes=1 << 20)
    with pytest.raises(InvalidArgument, match="more than 100 to 1"):
        unpack(PACK[kind](bytes(64 << 20)), limits=limits)
    assert len(unpack(PACK[kind](bytes(1 << 20)), limits=limits)) == 1 << 20


def test_a_bomb_stops_at_the_total() -> None:
    with pytest.raises(InvalidArgument, match="more than 1000000 bytes"):
        unpack(gzip.compress(PLAIN), limits=Limits(total_bytes=1_000_000))


def test_a_zstd_window_beyond_the_bound_is_refused() -> None:
    options = {zstd.CompressionParameter.window_log: 28, zstd.CompressionParameter.enable_long_distance_matching: 1}
    compressor = zstd.ZstdCompressor(options=options)
    data = compressor.compress(b"x" * 1000) + compressor.flush()
    with pytest.raises(InvalidArgument, match="zstd"):
        unpack(data)


def test_an_empty_stream_is_empty() -> None:
    assert unpack(b"") == b""
