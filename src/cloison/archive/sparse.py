"""Sparse members: old GNU type S, and GNU's PAX formats 0.0, 0.1 and 1.0, all as one list of extents.

An extent is (offset, length) in the file; the archive holds the extents' bytes one after the other.
Source: GNU tar manual, "Storing Sparse Files" and "Basic Tar Format" (struct oldgnu_header).
"""

from __future__ import annotations

from cloison.archive.budget import bad_archive, shown
from cloison.archive.headers import BLOCK, FILE, parse_number
from cloison.archive.pax import parse_decimal, sparse_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloison.archive.budget import Limits
    from cloison.archive.headers import Entry

    Extents = list[tuple[int, int]]
    Take = Callable[[int], bytes]

_HEADER_SLOTS = range(386, 386 + 4 * 24, 24)
_EXTENSION_SLOTS = range(0, 21 * 24, 24)


def read_old_gnu(entry: Entry, header: bytes, *, take: Take, limits: Limits) -> None:
    """Map of a type S member: four extents in the header, 21 in each extension block. Raises: InvalidArgument."""
    extents = _old_slots(header, _HEADER_SLOTS)
    more = header[482]
    while more:
        block = take(BLOCK)
        extents += _old_slots(block, _EXTENSION_SLOTS)
        more = block[504]
        if len(extents) > limits.extents:
            raise bad_archive(f"{shown(entry.name)} has more than {limits.extents} extents")
    _accept(entry, extents, real_size=parse_number(header[483:495]), limits=limits)


def _old_slots(block: bytes, slots: range) -> Extents:
    extents: Extents = []
    for start in slots:
        if not block[start + 12]:  # an unused slot has no length, not even a zero
            break
        extents.append((parse_number(block[start : start + 12]), parse_number(block[start + 12 : start + 24])))
    return extents


def read_pax(entry: Entry, sparse: Mapping[bytes, bytes], *, take: Take, limits: Limits) -> None:
    """Map of a PAX sparse member; format 1.0 keeps it before the content. Raises: InvalidArgument."""
    if entry.kind != FILE:
        raise bad_archive(f"{shown(entry.name)} is sparse but not a regular file")
    name = sparse.get(b"name", b"")
    if b"\0" in name:
        raise bad_archive("a name in an extended header holds a NUL")
    entry.name = name or entry.name
    if sparse_version(sparse) == (1, 0):
        extents = _read_map_blocks(entry, take=take, limits=limits)
        real_size = sparse.get(b"realsize", b"")
    else:
        numbers = [parse_decimal(text) for text in _split(sparse.get(b"map", b""), limits=limits)]
        if len(numbers) % 2:
            raise bad_archive("sparse map with an offset but no length")
        extents = list(zip(numbers[::2], numbers[1::2], strict=True))
        real_size = sparse.get(b"size", b"") or sparse.get(b"realsize", b"")
        if b"numblocks" in sparse and parse_decimal(sparse[b"numblocks"]) != len(extents):
            raise bad_archive("sparse map with a wrong number of blocks")
    _accept(entry, extents, real_size=parse_decimal(real_size), limits=limits)


def _split(text: bytes, *, limits: Limits) -> list[bytes]:
    if text.count(b",") > 2 * limits.extents:
        raise bad_archive(f"more than {limits.extents} extents in one file")
    return text.split(b",") if text else []


def _read_map_blocks(entry: Entry, *, take: Take, limits: Limits) -> Extents:
    """Format 1.0: decimal lines (how many, then offset and length of each) padded to a block, counted in size."""
    read = 0
    text = b""

    def block() -> bytes:
        nonlocal read
        read += BLOCK
        if read > entry.size or read > 64 * limits.extents:
            raise bad_archive(f"the sparse map of {shown(entry.name)} does not end")
        return take(BLOCK)

    lines: list[bytes] = []
    wanted = 1
    while len(lines) < wanted:
        text += block()
        *done, text = text.split(b"\n")
        lines += done
        if lines:
            wanted = 1 + 2 * parse_decimal(lines[0], limit=limits.extents)
    if any(lines[wanted:]) or text.strip(b"\0"):
        raise bad_archive(f"something follows the sparse map of {shown(entry.name)}")
    entry.size -= read
    numbers = [parse_decimal(line) for line in lines[1:wanted]]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _accept(entry: Entry, extents: Extents, *, real_size: int, limits: Limits) -> None:
    """Raises: InvalidArgument unless the extents ascend, lie inside the file, and are what the archive holds."""
    end = 0
    for offset, length in extents:
        if offset < end:
            raise bad_archive(f"the sparse map of {shown(entry.name)} goes backwards")
        end = offset + length
    if end > real_size or real_size > limits.file_bytes or len(extents) > limits.extents:
        raise bad_archive(f"the sparse map of {shown(entry.name)} is out of range")
    if sum(length for _offset, length in extents) != entry.size:
        raise bad_archive(f"the sparse map of {shown(entry.name)} does not match its content")
    entry.kind = FILE
    entry.extents = extents
    entry.real_size = real_size
