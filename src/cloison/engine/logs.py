"""Reading a container's framed log: `logs`, its tail, its follow.

Format: docs/launch-plan.md, "The log file". The monitor appends and rotates; readers only read, and a torn last record
(the monitor is in the middle of it) is "not yet there".
"""

from __future__ import annotations

import os
import struct
import time

from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_HEADER = struct.Struct("<B3xIQ")
_MAX_RECORD = 1 << 20
_POLL_S = 0.05


class LogEntry(Record):
    """Bytes that the command wrote at one moment; they may hold several lines, or part of one."""

    stream: int  # 1 stdout, 2 stderr
    time_ns: int  # CLOCK_REALTIME
    data: bytes


class LogQuery(Record):
    stdout: bool = True
    stderr: bool = True
    tail: int | None = None  # lines; None is all
    since_ns: int = 0
    until_ns: int = 0
    follow: bool = False

    def wants(self, entry: LogEntry) -> bool:
        if entry.time_ns < self.since_ns or (self.until_ns and entry.time_ns > self.until_ns):
            return False
        return self.stdout if entry.stream == 1 else self.stderr


def read_log(path: str, query: LogQuery, *, is_running: Callable[[], bool]) -> Iterator[LogEntry]:
    """Entries, oldest first; with ``follow`` until the container has ended and everything was read."""
    reader = _Reader(path)
    try:
        entries = _matching(reader, query)
        if query.tail is not None:
            yield from last_lines(entries, query.tail)
        else:
            yield from entries
        while query.follow:
            running = is_running()  # asked before the read: what is written until then is read below
            yield from _matching(reader, query)
            if not running or (query.until_ns and time.time_ns() > query.until_ns):
                return
            time.sleep(_POLL_S)
    finally:
        reader.close()


def last_lines(entries: Iterator[LogEntry], count: int) -> Iterator[LogEntry]:
    """The last ``count`` lines, counted over both streams as they came."""
    kept: list[LogEntry] = []
    lines = 0
    for entry in entries:
        kept.append(entry)
        lines += entry.data.count(b"\n")
        while kept and lines - kept[0].data.count(b"\n") > count:
            lines -= kept.pop(0).data.count(b"\n")
    if kept and not kept[-1].data.endswith(b"\n"):
        lines += 1
    for entry in kept:
        surplus = lines - count
        if surplus <= 0:
            yield entry
            continue
        own = entry.data.count(b"\n")
        lines -= min(own, surplus)
        rest = entry.data.split(b"\n", surplus)[-1] if own >= surplus else b""
        if rest:
            yield entry.replace(data=rest)


def _matching(reader: _Reader, query: LogQuery) -> Iterator[LogEntry]:
    return (entry for entry in reader.entries() if query.wants(entry))


class _Reader:
    """Walks the rotated files, oldest first, then the live one, and notices when that is rotated away."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._pending = b""

    def entries(self) -> Iterator[LogEntry]:
        if self._fd < 0:
            for older in self._rotated():
                yield from self._drain(older)
                os.close(older)
                self._pending = b""
        while self._ensure_open():
            yield from self._drain(self._fd)
            if not self._was_rotated():
                return
            # between our last read and the rename the monitor may have written once more
            yield from self._drain(self._fd)
            self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._pending = -1, b""

    def _rotated(self) -> Iterator[int]:
        number = 1
        while os.path.exists(f"{self._path}.{number}"):
            number += 1
        for older in range(number - 1, 0, -1):
            fd = _open(f"{self._path}.{older}")
            if fd >= 0:
                yield fd

    def _ensure_open(self) -> bool:
        if self._fd < 0:
            self._fd = _open(self._path)
        return self._fd >= 0

    def _was_rotated(self) -> bool:
        try:
            return not os.path.samestat(os.fstat(self._fd), os.stat(self._path, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def _drain(self, fd: int) -> Iterator[LogEntry]:
        while piece := os.read(fd, 1 << 18):
            buffer = self._pending + piece
            offset = 0
            while len(buffer) - offset >= _HEADER.size:
                stream, length, time_ns = _HEADER.unpack_from(buffer, offset)
                if stream not in (1, 2) or length > _MAX_RECORD:
                    return  # damage: what follows cannot be framed again
                end = offset + _HEADER.size + length
                if end > len(buffer):
                    break
                yield LogEntry(stream=stream, time_ns=time_ns, data=buffer[offset + _HEADER.size : end])
                offset = end
            self._pending = buffer[offset:]


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return -1
