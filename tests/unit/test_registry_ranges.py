"""Big blobs in parts: in order, as many at once as allowed, resumed; registries without ranges, and with false ones."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from cloison.errors import CloisonError
from cloison.oci.image import Descriptor
from scripted_registry import LIMITS, Exchange, ScriptedRegistry, bounded, client_of, fetch_blob

DATA = os.urandom(1_000_000)
PART = 100_000
PARTS = LIMITS.replace(ranges_on_loopback=3, range_bytes=PART, big_blob_bytes=500_000)


@pytest.fixture
def server() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as running:
        yield running


class Blob:
    """Serves ranges of DATA; notes which, and how many at once."""

    def __init__(self, server: ScriptedRegistry) -> None:
        self.server = server
        self.descriptor = Descriptor(media_type="x", digest=server.add_blob(DATA), size=len(DATA))
        self.ranges: list[tuple[int, int]] = []
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self.on(self.serve)

    def on(self, handler: object) -> None:
        self.server.on(f"/v2/app/blobs/{self.descriptor.digest}", handler)  # type: ignore[arg-type]

    def wanted(self, exchange: Exchange) -> tuple[int, int]:
        first, _, last = exchange.headers["range"].removeprefix("bytes=").partition("-")
        return int(first), int(last) + 1 if last else len(DATA)

    def serve(self, exchange: Exchange) -> None:
        begin, end = self.wanted(exchange)
        with self._lock:
            self.ranges.append((begin, end))
            self._now += 1
            self.most = max(self.most, self._now)
        exchange.wait(0.02)
        with self._lock:
            self._now -= 1
        exchange.answer(206, DATA[begin:end], content_range=f"bytes {begin}-{end - 1}/{len(DATA)}")


def test_a_big_blob_comes_in_parts_several_at_once_and_in_order(server: ScriptedRegistry) -> None:
    blob = Blob(server)
    with client_of(server, limits=PARTS) as client:
        assert fetch_blob(client, blob.descriptor) == DATA
    assert sorted(blob.ranges) == [(begin, begin + PART) for begin in range(0, len(DATA), PART)]
    assert 1 < blob.most <= 3


def test_a_small_blob_and_one_on_loopback_come_whole(server: ScriptedRegistry) -> None:
    blob = Blob(server)
    server.add_blob(DATA)
    for limits in (LIMITS, PARTS.replace(big_blob_bytes=len(DATA) + 1)):
        with client_of(server, limits=limits) as client:
            assert fetch_blob(client, blob.descriptor) == DATA
    assert server.headers_seen("range") == []


def test_a_registry_without_ranges_gives_the_blob_whole(server: ScriptedRegistry) -> None:
    blob = Blob(server)
    server.add_blob(DATA)
    with client_of(server, limits=PARTS) as client:
        assert fetch_blob(client, blob.descriptor) == DATA
    assert [("range" in request.headers) for request in server.requests] == [True, False]


def test_a_part_that_breaks_goes_on_where_it_broke(server: ScriptedRegistry) -> None:
    blob = Blob(server)
    broken = {300_000: 2}

    def handler(exchange: Exchange) -> None:
        begin, end = blob.wanted(exchange)
        if broken.pop(begin, 0):
            exchange.head(206, content_range=f"bytes {begin}-{end - 1}/{len(DATA)}", content_length=str(end - begin))
            exchange.send(DATA[begin : begin + 40_000])
        else:
            blob.serve(exchange)

    blob.on(handler)
    with client_of(server, limits=PARTS) as client:
        assert fetch_blob(client, blob.descriptor) == DATA
    assert any(begin > 300_000 and end == 400_000 for begin, end in blob.ranges)


@pytest.mark.parametrize("lie", ["other range", "short", "long", "404", "stops giving ranges"])
def test_a_false_part_ends_the_transfer(server: ScriptedRegistry, lie: str) -> None:
    blob = Blob(server)

    def handler(exchange: Exchange) -> None:
        begin, end = blob.wanted(exchange)
        said = f"bytes {begin}-{end - 1}/{len(DATA)}"
        if begin < 300_000:
            blob.serve(exchange)
        elif lie == "other range":
            exchange.answer(206, DATA[begin:end], content_range=f"bytes 0-{end - 1}/{len(DATA)}")
        elif lie == "short":
            exchange.answer(206, DATA[begin : end - 1], content_range=said)
        elif lie == "long":
            exchange.answer(206, DATA[begin:end] + b"x" * 200_000, content_range=said)
        elif lie == "404":
            exchange.answer(404)
        else:
            exchange.answer(200, DATA)

    blob.on(handler)
    with client_of(server, limits=PARTS) as client, bounded(10):
        if lie == "long":  # what was not asked for is not read
            assert fetch_blob(client, blob.descriptor) == DATA
        else:
            with pytest.raises(CloisonError):
                fetch_blob(client, blob.descriptor)


def test_an_abort_ends_all_parts(server: ScriptedRegistry) -> None:
    blob = Blob(server)

    def stall(exchange: Exchange) -> None:
        if blob.wanted(exchange)[0] == 0:
            blob.serve(exchange)
        else:
            exchange.wait(30)

    blob.on(stall)
    patient = PARTS.replace(head_timeout_s=20.0)
    with client_of(server, limits=patient) as client, bounded(5):
        pieces = client.blob(blob.descriptor)
        assert next(pieces) == DATA[:PART]
        threading.Timer(0.3, client.abort).start()
        threading.Timer(0.5, server._stopped.set).start()  # who waits for an answer's head is not cut off
        with pytest.raises(CloisonError):
            list(pieces)
