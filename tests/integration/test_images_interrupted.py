"""^C in the middle of unpacking: the threads stop, and nothing of what they made is left, now or later."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from cloison.engine.publishing import StoredLayers, publish
from cloison.images import crew
from cloison.images.layout import StoredImage, describe_layer
from cloison.images.progress import NoProgress
from cloison.images.records import ImageStore
from harness import Roots, until
from image_store import Store
from registry_fixture import digest_of
from unpack_fixture import archive, file


@pytest.fixture
def store() -> Iterator[Store]:
    roots = Roots()
    made = Store(roots)
    made.images.import_rootfs(io.BytesIO(archive(file("x"))), "first")  # the directories are there
    yield made
    roots.remove()


class Held(NoProgress):
    """Holds the threads at their first piece until released; tells when all are there."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count + 1, timeout=10)
        self.release = threading.Event()
        self._known: set[str] = set()

    def advance(self, item: str, count: int) -> None:
        if item not in self._known:
            self._known.add(item)
            self.barrier.wait()
        self.release.wait(10)


def two_layers(store: Store) -> StoredImage:
    layers = [archive(file(f"f{number}", os.urandom(3 << 20))) for number in range(2)]
    config = {"os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]}}
    data = json.dumps(config).encode()
    described = tuple(describe_layer(store.blobs.add_bytes(layer), blobs=store.blobs) for layer in layers)
    return StoredImage(
        manifest_digest=digest_of(b""), config_digest=store.blobs.add_bytes(data), config=data, layers=described
    )


@pytest.mark.parametrize("patience_s", [2.0, 0.1], ids=["in time", "late"])
def test_an_interrupted_unpacking_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, patience_s: float
) -> None:
    monkeypatch.setattr(crew, "_PATIENCE_S", patience_s)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    stored, held = two_layers(store), Held(2)

    def press() -> None:
        held.barrier.wait()
        time.sleep(0.1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.3)  # the caller has been told; in the second case it has given up waiting, too
        held.release.set()

    presser = threading.Thread(target=press)
    presser.start()
    before = store.content()
    with pytest.raises(KeyboardInterrupt):
        publish(
            stored,
            StoredLayers(store.blobs),
            settings=store.settings,
            blobs=store.blobs,
            store=ImageStore(str(store.root)),
            progress=held,
        )
    presser.join()
    until(lambda: store.content() == before, timeout_s=30, what="the clean-up of late threads")
