"""What an ELF file asks for before it can run: its interpreter, its libraries, and where it wants them looked up.

Nothing is executed (ldd would). Source: System V ABI, "Program Loading and Dynamic Linking"; elf(5).
"""

from __future__ import annotations

import os
import struct

from cloison.model.record import Record

_MAGIC = b"\x7fELF"
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 10, 15, 29
_MAX_HEADERS = 1024
_MAX_DYNAMIC_BYTES = 1 << 20
_MAX_STRINGS_BYTES = 16 << 20


class Elf(Record):
    """The dynamic needs of one file; a static program has none."""

    machine: tuple[int, int]  # class (1: 32 bit, 2: 64 bit) and e_machine: only equal ones go together
    interpreter: str = ""
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()


def read_elf(fd: int) -> Elf | None:
    """None when the file is no ELF file, or is damaged."""
    head = os.pread(fd, 64, 0)
    if len(head) < 52 or head[:4] != _MAGIC or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    try:
        return _Reader(fd, head).read()
    except (struct.error, IndexError, OSError, OverflowError):
        return None


class _Reader:
    def __init__(self, fd: int, head: bytes) -> None:
        self._fd = fd
        self._wide = head[4] == 2
        self._order = "<" if head[5] == 1 else ">"
        self._machine = (head[4], struct.unpack_from(self._order + "H", head, 18)[0])
        if self._wide:
            self._table = struct.unpack_from(self._order + "Q", head, 32)[0]
            self._size, self._count = struct.unpack_from(self._order + "HH", head, 54)
        else:
            self._table = struct.unpack_from(self._order + "I", head, 28)[0]
            self._size, self._count = struct.unpack_from(self._order + "HH", head, 42)

    def read(self) -> Elf:
        segments = self._segments()
        interpreter = ""
        tags: list[tuple[int, int]] = []
        for kind, offset, _address, size in segments:
            if kind == _PT_INTERP:
                interpreter = os.fsdecode(os.pread(self._fd, min(size, 4096), offset).rstrip(b"\0"))
            elif kind == _PT_DYNAMIC:
                tags = self._dynamic(offset, size)
        values = dict(tags)
        strings = self._strings(values, segments)
        return Elf(
            machine=self._machine, interpreter=interpreter,
            needed=tuple(_string(strings, value) for tag, value in tags if tag == _DT_NEEDED),
            rpath=_paths(strings, values.get(_DT_RPATH)), runpath=_paths(strings, values.get(_DT_RUNPATH)),
        )  # fmt: skip

    def _segments(self) -> list[tuple[int, int, int, int]]:
        """(type, offset, virtual address, size in the file) of each program header."""
        found = []
        for i in range(min(self._count, _MAX_HEADERS)):
            data = os.pread(self._fd, self._size, self._table + i * self._size)
            if self._wide:
                kind, _flags, offset, address, _physical, size = struct.unpack_from(self._order + "IIQQQQ", data)
            else:
                kind, offset, address, _physical, size = struct.unpack_from(self._order + "IIIII", data)
            found.append((kind, offset, address, size))
        return found

    def _dynamic(self, offset: int, size: int) -> list[tuple[int, int]]:
        data = os.pread(self._fd, min(size, _MAX_DYNAMIC_BYTES), offset)
        pair = struct.Struct(self._order + ("qQ" if self._wide else "iI"))
        tags: list[tuple[int, int]] = []
        for tag, value in pair.iter_unpack(data[: len(data) // pair.size * pair.size]):
            if tag == _DT_NULL:
                break
            tags.append((tag, value))
        return tags

    def _strings(self, values: dict[int, int], segments: list[tuple[int, int, int, int]]) -> bytes:
        """The string table; its place is a virtual address, which a loaded segment maps to the file."""
        address = values.get(_DT_STRTAB, 0)
        for kind, offset, start, size in segments:
            if kind == _PT_LOAD and start <= address < start + size:
                length = min(values.get(_DT_STRSZ, 0), _MAX_STRINGS_BYTES)
                return os.pread(self._fd, length, offset + address - start)
        return b""


def _string(strings: bytes, offset: int) -> str:
    return os.fsdecode(strings[offset : strings.index(b"\0", offset)]) if offset < len(strings) else ""


def _paths(strings: bytes, offset: int | None) -> tuple[str, ...]:
    return tuple(filter(None, _string(strings, offset).split(":"))) if offset is not None else ()
