"""Work that two commands want done at once is done once: blobs fetched, layers unpacked."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from cloison.engine.system import System
from harness import Cloison, Roots, until
from image_store import Store
from registry_fixture import digest_of
from scripted_registry import Exchange, ScriptedRegistry
from unpack_fixture import archive, file


@pytest.fixture
def command() -> Iterator[Cloison]:
    roots = Roots()
    yield Cloison(roots)
    roots.remove()


@pytest.fixture
def server() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as running:
        yield running


def serve(server: ScriptedRegistry, name: str, *layers: bytes, seconds: float) -> None:
    """An image whose layers take their time."""
    config = {"architecture": "amd64", "os": "linux",
              "rootfs": {"type": "layers", "diff_ids": [*map(digest_of, layers)]}}  # fmt: skip
    kind = "application/vnd.oci.image"

    def blob(data: bytes, media_type: str, *, slow: bool = False) -> dict[str, object]:
        digest = server.add_blob(data, name=name)

        def answer(exchange: Exchange) -> None:
            exchange.head(200, content_length=str(len(data)))
            exchange.send(data[: len(data) // 2])
            exchange.wait(seconds)
            exchange.keep_alive = exchange.send(data[len(data) // 2 :])

        if slow:
            server.on(f"/v2/{name}/blobs/{digest}", answer)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    described = [blob(gzip.compress(layer, mtime=0), f"{kind}.layer.v1.tar+gzip", slow=True) for layer in layers]
    manifest = {"schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json",
                "config": blob(json.dumps(config).encode(), f"{kind}.config.v1+json"),
                "layers": described}  # fmt: skip
    server.add_manifest(manifest, name=name)


def blob_requests(server: ScriptedRegistry) -> Counter[str]:
    found = Counter(exchange.path.rpartition("/")[2] for exchange in server.requests if "/blobs/" in exchange.path)
    found.pop("", None)
    return found


def spawn(command: Cloison, *words: str) -> subprocess.Popen[bytes]:
    return command.spawn(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)


def test_pulls_of_one_image_at_once_fetch_each_blob_once(command: Cloison, server: ScriptedRegistry) -> None:
    serve(server, "app", *(archive(file(f"f{i}", b"x" * 50_000)) for i in range(3)), seconds=0.7)
    pulls = [spawn(command, "pull", f"{server.address}/app") for _ in range(4)]
    outputs = [pull.communicate(timeout=60) for pull in pulls]
    assert [pull.returncode for pull in pulls] == [0] * 4, outputs
    assert set(blob_requests(server).values()) == {1}
    assert list(System(Store(command.roots).settings).check()) == []


def test_images_that_share_a_layer_fetch_and_unpack_it_once(command: Cloison, server: ScriptedRegistry) -> None:
    shared = archive(file("shared", b"s" * 50_000))
    for name in ("one", "two"):
        serve(server, name, shared, archive(file(name)), seconds=0.7)
    pulls = [spawn(command, "pull", "-q", f"{server.address}/{name}") for name in ("one", "two")]
    outputs = [pull.communicate(timeout=60) for pull in pulls]
    assert [pull.returncode for pull in pulls] == [0, 0], outputs
    digest = digest_of(gzip.compress(shared, mtime=0))
    assert blob_requests(server)[digest] == 1
    store = Store(command.roots)
    assert len(list(store.snapshots.list_layers())) == 3
    assert list(System(store.settings).check()) == []


def test_who_waits_for_a_pull_that_is_killed_does_the_rest(command: Cloison, server: ScriptedRegistry) -> None:
    serve(server, "app", archive(file("f", b"x" * 50_000)), seconds=1.5)
    first = spawn(command, "pull", "-q", f"{server.address}/app")
    until(lambda: sum(blob_requests(server).values()) >= 2, what="the first pull's requests")
    second = spawn(command, "pull", "-q", f"{server.address}/app")
    time.sleep(0.5)
    first.kill()
    first.communicate()
    _out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert max(blob_requests(server).values()) == 2


def test_who_waits_can_be_interrupted(command: Cloison, server: ScriptedRegistry) -> None:
    serve(server, "app", archive(file("f", b"x" * 50_000)), seconds=25)
    first = spawn(command, "pull", "-q", f"{server.address}/app")
    until(lambda: sum(blob_requests(server).values()) >= 2, what="the first pull's requests")
    asked = len(server.requests)
    second = spawn(command, "pull", "-q", f"{server.address}/app")
    until(lambda: len(server.requests) > asked, what="the second pull's question for the manifest")
    time.sleep(0.3)
    begun = time.monotonic()
    second.send_signal(signal.SIGINT)
    assert second.wait(20) == 130
    assert time.monotonic() - begun < 20  # it would have to wait for 25
    first.kill()
    for pull in (first, second):
        pull.communicate()
