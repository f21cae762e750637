"""What a thread reads ahead is what the stream gives: bytes, their digest, its failure, and never too much of it."""

from __future__ import annotations

import hashlib
import threading
import time

import pytest

from cloison.archive.read_ahead import ReadAhead
from cloison.errors import InvalidArgument


class Pieces:
    """A stream of numbered pieces; it may fail in the place of one. Counts what was read of it."""

    def __init__(self, count: int, *, failure: Exception | None = None) -> None:
        self.count, self.failure, self.given = count, failure, 0

    def read(self, _size: int, /) -> bytes:
        if self.given == self.count:
            if self.failure:
                raise self.failure
            return b""
        self.given += 1
        return b"%d," % self.given


def rest_of(ahead: ReadAhead) -> bytes:
    return b"".join(iter(ahead.read, b""))


def test_pieces_and_digest_are_the_streams() -> None:
    ahead = ReadAhead(Pieces(1000))
    data = rest_of(ahead)
    assert data == b"".join(b"%d," % number for number in range(1, 1001))
    assert ahead.digest() == "sha256:" + hashlib.sha256(data).hexdigest()
    assert ahead.read() == b""


def test_a_failure_comes_after_what_was_read_before_it() -> None:
    ahead = ReadAhead(Pieces(2, failure=InvalidArgument("damaged")))
    assert (ahead.read(), ahead.read()) == (b"1,", b"2,")
    with pytest.raises(InvalidArgument, match="damaged"):
        ahead.read()
    ahead.close()


def test_it_waits_for_a_slow_user_so_that_memory_is_bounded() -> None:
    stream = Pieces(1000)
    ahead = ReadAhead(stream)
    ahead.read()
    deadline = time.monotonic() + 30
    while stream.given < 18 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert stream.given == 18  # one used, sixteen wait, one is in the thread's hand
    ahead.close()
    assert stream.given < 60


def test_after_close_nobody_touches_the_stream_and_no_thread_is_left() -> None:
    before = threading.active_count()
    for failure in (None, InvalidArgument("damaged")):
        stream = Pieces(30, failure=failure)
        ahead = ReadAhead(stream)
        ahead.close()
        given = stream.given
        ahead.close()
        time.sleep(0.02)
        assert stream.given == given
    assert threading.active_count() == before
