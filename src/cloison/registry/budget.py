"""How long and how much a server may make us wait, read and store: every byte of an answer passes through here.

`http.client` bounds lines and their number, not time: a server that sends one byte before each time-out holds a client
for ever. So the descriptor below its buffer is replaced by one that counts bytes and waiting time.
"""

from __future__ import annotations

import io
import threading
import time

from cloison.errors import Unavailable
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket


class Limits(Record):
    """The patience of one client with one registry."""

    connect_timeout_s: float = 10.0  # TCP, all addresses of a name together; TLS again as long
    head_timeout_s: float = 30.0  # from the request sent to the last header
    head_bytes: int = 64 << 10
    window_s: float = 20.0  # so many seconds of waiting …
    minimum_rate: int = 1024  # … must bring so many bytes each
    attempts: int = 3  # a request that fails for a passing reason is sent so often
    backoff_s: float = 0.5  # doubled each time
    retry_after_max_s: float = 30.0  # a registry that wants us to wait longer gets an error instead
    redirects: int = 8
    resumes: int = 5  # a blob's transfer may break so often
    ranges: int = 3  # a big blob comes in parts, so many at once
    ranges_on_loopback: int = 1  # where one connection has all there is
    range_bytes: int = 8 << 20  # a part
    big_blob_bytes: int = 64 << 20


class TransferBroken(Unavailable):
    """A transfer that may succeed when it is tried again."""


class Unreachable(Unavailable):
    """Nobody takes the connection."""


class NoTls(Unavailable):
    """Whoever takes it does not speak TLS."""


class Meter:
    """Counts the bytes and the waiting of one answer against its limits."""

    def __init__(self, limits: Limits, *, body_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._limits = limits
        # chunk headers and trailers come on top of the body
        self._total_bytes = limits.head_bytes + 2 * body_bytes + (64 << 10)
        self._head_deadline = clock() + limits.head_timeout_s
        self._in_head = True
        self._seen_bytes = 0
        self._window_bytes = 0
        self._window_waited_s = 0.0

    def head_done(self) -> None:
        self._in_head = False

    def restart(self) -> None:
        """The answer's patience begins now: sending the body does not count."""
        self._head_deadline = self.clock() + self._limits.head_timeout_s

    def patience_s(self) -> float:
        """Seconds that the next read may wait. Raises: TransferBroken when the server has used them up."""
        if self._in_head:
            remaining = self._head_deadline - self.clock()
            if remaining <= 0:
                raise TransferBroken(
                    "the registry does not answer", why=f"no answer in {self._limits.head_timeout_s:g} s"
                )
            return remaining
        limits = self._limits
        if self._window_waited_s >= limits.window_s:
            if self._window_bytes < limits.window_s * limits.minimum_rate:
                raise self.stalled()
            self._window_bytes, self._window_waited_s = 0, 0.0
        return limits.window_s - self._window_waited_s

    def count(self, size: int, waited_s: float) -> None:
        """Note one read. Raises: Unavailable when the server sends more than any good answer has."""
        self._seen_bytes += size
        self._window_bytes += size
        self._window_waited_s += waited_s
        # the buffer above reads ahead, so a short body may have come with the head
        if self._in_head and self._seen_bytes > self._limits.head_bytes + io.DEFAULT_BUFFER_SIZE:
            raise Unavailable(
                "the registry's answer is refused", why=f"more than {self._limits.head_bytes} bytes of headers"
            )
        if self._seen_bytes > self._total_bytes:
            raise Unavailable("the registry's answer is refused", why="it is longer than announced")

    def stalled(self) -> TransferBroken:
        if self._in_head:
            return TransferBroken("the registry does not answer", why=f"no answer in {self._limits.head_timeout_s:g} s")
        return TransferBroken(
            "the registry is too slow",
            why=f"less than {self._limits.minimum_rate} bytes/s for {self._limits.window_s:g} s",
        )


class MeteredReader(io.RawIOBase):
    """The reading side of a socket, under a meter."""

    def __init__(self, raw: io.RawIOBase, *, sock: socket, meter: Meter) -> None:
        self._raw = raw
        self._sock = sock
        self._meter = meter

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        meter = self._meter
        self._sock.settimeout(meter.patience_s())
        begun = meter.clock()
        try:
            size = self._raw.readinto(buffer)
        except TimeoutError as err:
            raise meter.stalled() from err
        meter.count(size or 0, meter.clock() - begun)
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class CurrentMeter(threading.local):
    """The meter of the request that this thread is making; urllib3 has no way to hand one down."""

    meter: Meter
