"""How much a stranger's archive may cost us: every bound in one place (bombs are refused, never survived by luck)."""

from __future__ import annotations

import os

from cloison.errors import InvalidArgument, NoSpace
from cloison.model.record import Record

_MIB = 1 << 20


class Limits(Record):
    """Bounds of one layer; generous for real images, small against a bomb."""

    total_bytes: int = 1 << 40  # after decompression
    ratio: int = 1000  # decompressed : compressed, looked at after ratio_after_bytes
    ratio_after_bytes: int = 100 * _MIB
    entries: int = 3_000_000
    path_bytes: int = 4096  # PATH_MAX
    name_bytes: int = 255  # NAME_MAX
    depth: int = 256
    pax_bytes: int = _MIB  # one extended header
    extents: int = 65_536  # of one sparse file
    file_bytes: int = 1 << 44  # apparent size; ext4's limit
    window_log: int = 27  # zstd: 128 MiB


DEFAULT_LIMITS = Limits()


def bad_archive(why: str) -> InvalidArgument:
    """The error for bytes that are no archive, or one that must not be unpacked."""
    return InvalidArgument("invalid archive", why=why)


def shown(name: bytes) -> str:
    """A member's name for an error message: printable, and never long."""
    text = repr(name[:200])[2:-1]
    return f"'{text}…'" if len(name) > 200 else f"'{text}'"


class DiskReserve:
    """Stops before the last bytes of a file system are gone: the machine, and our own records, need some."""

    _STEP = 32 * _MIB

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._until_look = 0

    def spend(self, count: int) -> None:
        """``count`` bytes are about to be written. Raises: NoSpace."""
        self._until_look -= count
        if self._until_look > 0:
            return
        room = os.fstatvfs(self._fd)
        free = room.f_bavail * room.f_frsize
        if room.f_blocks and free - count < min(64 * _MIB, room.f_blocks * room.f_frsize // 64):
            raise NoSpace("cannot unpack the layer")
        self._until_look = min(self._STEP, free // 8)
