"""Layers that we make: the same members always give the same bytes (sorted by the caller, no clock, no user names).

Format: POSIX ustar with PAX records where a value does not fit (image-spec layer.md, "Change Types").
"""

from __future__ import annotations

import os

from cloison.archive.headers import BLOCK, FILE, NS, ZERO_BLOCK, Entry
from cloison.archive.pax import render_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    class Writable(Protocol):
        """A sink of bytes."""

        def write(self, data: bytes, /) -> object: ...


_CHUNK = 1 << 20
_MAX_OCTAL7 = 0o7777777
_MAX_OCTAL11 = 0o77777777777


def new_entry(
    name: bytes,
    kind: bytes,
    *,
    mode: int,
    uid: int = 0,
    gid: int = 0,
    mtime_ns: int = 0,
    link: bytes = b"",
    size: int = 0,
) -> Entry:
    """A member to be written; the root is ``./``."""
    entry = Entry()
    entry.name, entry.kind, entry.link = name, kind, link
    entry.mode, entry.uid, entry.gid, entry.mtime_ns, entry.size = mode, uid, gid, mtime_ns, size
    entry.major = entry.minor = entry.real_size = 0
    entry.xattrs = {}
    entry.extents = None
    return entry


class TarWriter:
    """Writes members one by one; ``finish`` ends the archive.

    ``pad``: a file with less than its size is filled up with zeros.
    """

    def __init__(self, out: Writable, *, pad: bool = False) -> None:
        self._out = out
        self._pad = pad

    def add(self, entry: Entry, *, data: bytes = b"", fd: int = -1) -> None:
        """One member; a regular file's ``entry.size`` bytes come from ``data``, or from ``fd``'s position on.

        Raises: OSError; EOFError when ``fd`` has less, and it is not padded.
        """
        if entry.kind == FILE and fd < 0:
            entry.size = len(data)
        self._begin(entry)
        if fd >= 0:
            self._copy(fd, entry.size)
        elif data:
            self._write_padded(data)

    def add_pieces(self, entry: Entry, pieces: Iterable[bytes]) -> None:
        """A regular file of ``entry.size`` bytes. Raises: OSError; EOFError when they are not that many."""
        self._begin(entry)
        left = entry.size
        for piece in pieces:
            left -= len(piece)
            self._out.write(piece)
        if left:
            raise EOFError(f"{entry.size - left} bytes for a member of {entry.size}")
        self._out.write(bytes(-entry.size % BLOCK))

    def finish(self) -> None:
        self._out.write(ZERO_BLOCK + ZERO_BLOCK)

    def _begin(self, entry: Entry) -> None:
        records = _records(entry)
        if records:
            self._write_header(_pax_entry(len(records)))
            self._write_padded(records)
        self._write_header(entry)

    def _write_header(self, entry: Entry) -> None:
        self._out.write(_render_header(entry))

    def _write_padded(self, data: bytes) -> None:
        self._out.write(data + bytes(-len(data) % BLOCK))

    def _copy(self, fd: int, size: int) -> None:
        left = size
        while left:
            piece = os.read(fd, min(left, _CHUNK))
            if not piece and not self._pad:
                raise EOFError("the file became shorter while it was read")
            piece = piece or bytes(min(left, _CHUNK))
            self._out.write(piece)
            left -= len(piece)
        self._out.write(bytes(-size % BLOCK))


def _records(entry: Entry) -> bytes:
    """PAX records for what the header cannot say."""
    seconds, fraction = divmod(entry.mtime_ns, NS)
    values: list[tuple[bytes, bytes]] = []
    if len(entry.name) > 100 and _split(entry.name) is None:
        values.append((b"path", entry.name))
    if len(entry.link) > 100:
        values.append((b"linkpath", entry.link))
    if entry.size > _MAX_OCTAL11:
        values.append((b"size", b"%d" % entry.size))
    values += [
        (key, b"%d" % number) for key, number in ((b"uid", entry.uid), (b"gid", entry.gid)) if number > _MAX_OCTAL7
    ]
    if fraction or not 0 <= seconds <= _MAX_OCTAL11:
        values.append((b"mtime", _render_time(entry.mtime_ns)))
    values += [(b"SCHILY.xattr." + name, value) for name, value in sorted(entry.xattrs.items())]
    return b"".join(render_record(key, value) for key, value in values)


def _render_time(mtime_ns: int) -> bytes:
    seconds, fraction = divmod(abs(mtime_ns), NS)
    sign = "-" if mtime_ns < 0 else ""
    return f"{sign}{seconds}.{fraction:09d}".rstrip("0").rstrip(".").encode()


def _pax_entry(size: int) -> Entry:
    return new_entry(b"././@PaxHeader", b"x", mode=0o644, size=size)


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Prefix and name of ustar: at most 155 and 100 bytes, cut at a slash."""
    cut = name.find(b"/", len(name) - 101)
    if 0 < cut <= 155 and 0 < len(name) - cut - 1 <= 100:
        return name[:cut], name[cut + 1 :]
    return None


def _render_header(entry: Entry) -> bytes:
    prefix, name = b"", entry.name
    if len(name) > 100:
        prefix, name = _split(name) or (b"", name[:100])
    seconds = entry.mtime_ns // NS
    block = b"".join((
        name.ljust(100, b"\0"), _octal(entry.mode, 8), _octal(entry.uid, 8), _octal(entry.gid, 8),
        _octal(entry.size, 12), _octal(seconds if seconds <= _MAX_OCTAL11 else 0, 12), b" " * 8, entry.kind,
        entry.link[:100].ljust(100, b"\0"), b"ustar\x0000", bytes(64), _octal(entry.major, 8), _octal(entry.minor, 8),
        prefix.ljust(155, b"\0"), bytes(12),
    ))  # fmt: skip
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _octal(number: int, width: int) -> bytes:
    """A field; what does not fit is in a PAX record, and zero here."""
    text = b"%0*o" % (width - 1, max(number, 0))
    return (text if len(text) < width else b"0" * (width - 1)) + b"\0"
