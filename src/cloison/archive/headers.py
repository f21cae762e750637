"""One tar header block: its fields as numbers and bytes (POSIX ustar; GNU tar manual, "Basic Tar Format").

Strict where readers of the field differ: what two of them could take for two things is refused.
"""

from __future__ import annotations

from functools import lru_cache
from zlib import adler32

from cloison.archive.budget import bad_archive, shown

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)

FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
GNU_SPARSE, GNU_LONG_NAME, GNU_LONG_LINK, PAX, PAX_GLOBAL = b"S", b"L", b"K", b"x", b"g"
EXTENSIONS = (GNU_LONG_NAME, GNU_LONG_LINK, PAX, PAX_GLOBAL)

# everything that has content is a regular file: "\0" is V7's, "7" is contiguous
_KINDS = {
    b"0": FILE, b"\0": FILE, b"7": FILE, b"1": LINK, b"2": SYMLINK, b"3": CHARACTER, b"4": BLOCK_DEVICE,
    b"5": DIRECTORY, b"6": FIFO, b"S": GNU_SPARSE, b"L": GNU_LONG_NAME, b"K": GNU_LONG_LINK, b"x": PAX,
    b"g": PAX_GLOBAL,
}  # fmt: skip
_OCTAL = b"01234567"
_ENDS = b"\0 "
_BLANKS = 8 * 0x20  # which stand for the checksum itself
_USTAR = b"ustar\0"
_STAR_TRAILER = b"tar\0"

MAX_ID = 0xFFFF_FFFE  # 0xFFFFFFFF is chown's "leave it"
_MIN_SECONDS, _MAX_SECONDS = -(1 << 31), (1 << 34) - 1  # what ext4 can keep
NS = 1_000_000_000


class Entry:
    """One member. Mutable while it is being read; plain slots, since a layer has 100,000 of them."""

    __slots__ = (
        "extents", "gid", "kind", "link", "major", "minor", "mode", "mtime_ns", "name", "real_size", "size", "uid",
        "xattrs",
    )  # fmt: skip

    name: bytes  # as written; never empty
    kind: bytes  # FILE … FIFO
    mode: int  # permission bits, setuid, setgid and sticky alone
    uid: int
    gid: int
    size: int  # bytes of content in the archive
    mtime_ns: int
    link: bytes
    major: int
    minor: int
    xattrs: dict[bytes, bytes]
    extents: list[tuple[int, int]] | None  # of a sparse file: offset, length
    real_size: int  # of a sparse file


def parse_header(block: bytes) -> Entry:
    """The fields of one block, checksum verified. Raises: InvalidArgument."""
    sum_of_rest, kind, link, prefix = _parse_rest(block[156:])
    # A sum of at most 256 bytes is the lower half of Adler-32, which begins at 1 and wraps beyond 65520 (RFC 1950).
    if (adler32(block[:148]) & 0xFFFF) + sum_of_rest != parse_number(block[148:156]):
        _check_signed_sum(block)
    if kind is None:
        raise bad_archive(f"member of unknown type {shown(block[156:157])}")
    entry = Entry()
    entry.kind = kind
    name = block[:100].partition(b"\0")[0]
    entry.name = prefix + b"/" + name if prefix is not None else name
    entry.mode, entry.uid, entry.gid = _parse_owner(block[100:124])
    entry.size = parse_number(block[124:136])
    entry.mtime_ns = clamp_seconds(parse_number(block[136:148], signed=True)) * NS
    entry.link = link
    entry.major = entry.minor = 0
    if kind in (CHARACTER, BLOCK_DEVICE):
        entry.major = parse_number(block[329:337])
        entry.minor = parse_number(block[337:345])
    entry.xattrs = {}
    entry.extents = None
    entry.real_size = 0
    return entry


# from the type on, most headers of an archive are one and the same
@lru_cache(maxsize=64)
def _parse_rest(rest: bytes) -> tuple[int, bytes | None, bytes, bytes | None]:
    """Of a block's last 356 bytes: what they add to the checksum, the kind if it is known, the link, the prefix."""
    total = (adler32(rest[:228]) & 0xFFFF) + (adler32(rest[228:]) & 0xFFFF) - 3 + _BLANKS
    prefix = None
    if rest[101:107] == _USTAR and rest[189]:
        # star keeps two times where POSIX has the prefix's end
        end = 320 if rest[352:356] == _STAR_TRAILER else 344
        prefix = rest[189:end].partition(b"\0")[0]
    return total, _KINDS.get(rest[:1]), rest[1:101].partition(b"\0")[0], prefix


@lru_cache(maxsize=256)
def _parse_owner(fields: bytes) -> tuple[int, int, int]:
    """Mode, uid and gid, of which an archive has the same few over and over."""
    return parse_number(fields[:8]) & 0o7777, parse_number(fields[8:16]), parse_number(fields[16:])


def _check_signed_sum(block: bytes) -> None:
    """Old tars added the bytes as signed characters. Raises: InvalidArgument."""
    added = block[:148] + b" " * 8 + block[156:]
    if sum(added) - 256 * sum(byte > 127 for byte in added) != parse_number(block[148:156]):
        raise bad_archive("a header's checksum is wrong")


def parse_number(field: bytes, *, signed: bool = False) -> int:
    """Octal digits between blanks, ended by a NUL; or base 256 with the first bit set. Raises: InvalidArgument."""
    digits = field[:-1]
    if digits.isdigit() and field[-1] in _ENDS:
        try:
            return int(digits, 8)
        except ValueError:
            pass
    elif field[0] & 0x80:
        return _parse_base256(field, signed=signed)
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits.strip(_OCTAL):
        raise bad_archive(f"{shown(field)} is not an octal number")
    return int(digits, 8) if digits else 0


def _parse_base256(field: bytes, *, signed: bool) -> int:
    value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    if field[0] & 0x40:  # two's complement
        value -= 1 << (8 * len(field) - 1)
        if not signed:
            raise bad_archive("a number is negative")
    return value


def clamp_seconds(seconds: int) -> int:
    """A time that every file system here can keep."""
    if _MIN_SECONDS <= seconds <= _MAX_SECONDS:
        return seconds
    return _MIN_SECONDS if seconds < 0 else _MAX_SECONDS
