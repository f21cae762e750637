"""Pulling from a real registry (Debian's docker-registry), filled by skopeo."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.errors import CloisonError, InvalidArgument, NotFound, Unavailable, Unsupported
from cloison.images.progress import NoProgress
from cloison.images.pull import Fetched
from cloison.model.reference import parse_reference
from cloison.model.settings import Settings
from cloison.oci.image import OCI_CONFIG, OCI_LAYER
from cloison.store.blobs import Blobs
from image_pull import fetch
from registry_fixture import Layout, Registry, digest_of, is_available, running_registry, tar_of
from scripted_registry import Exchange, ScriptedRegistry

pytestmark = pytest.mark.skipif(not is_available(), reason="needs Debian's docker-registry and skopeo")

BASE = tar_of({"etc/base": b"base " * 5000})
MIDDLE = tar_of({"etc/middle": os.urandom(1 << 20)})
TOP = tar_of({"etc/top": b"top"})


class Diary(NoProgress):
    """Notes everything, and how many layers were on their way at once."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.finished: dict[str, str] = {}
        self.bytes: dict[str, int] = {}
        self.totals: dict[str, int] = {}
        self._lock = threading.Lock()

    def start(self, item: str, total_bytes: int, action: str) -> None:
        with self._lock:
            self.totals[item] = total_bytes

    def advance(self, item: str, count: int) -> None:
        with self._lock:
            self.bytes[item] = self.bytes.get(item, 0) + count

    def finish(self, item: str, message: str) -> None:
        with self._lock:
            self.finished[item] = message

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        fill(running, tmp_path_factory.mktemp("layout") / "oci")
        yield running


def fill(registry: Registry, path: Path) -> None:
    """oci/mixed (gzip, zstd, plain), docker/app (schema 2), multi/app (an index), art/thing (no image)."""
    layout = Layout(path)
    layout.add_image([(BASE, "gzip"), (MIDDLE, "zstd"), (TOP, "plain")], tag="mixed")
    layout.add_image([(BASE, "gzip"), (MIDDLE, "gzip")], tag="app")
    amd64 = layout.add_image([(BASE, "gzip")])
    arm64 = layout.add_image([(BASE, "gzip"), (TOP, "gzip")], architecture="arm64", variant="v8")
    layout.add_index([amd64, arm64], tag="multi")
    layout.add_image([(TOP, "gzip")], tag="thing", config_media_type="application/vnd.cncf.helm.config.v1+json")
    registry.push(path, "oci/mixed:latest", "--preserve-digests", tag="mixed")
    registry.push(path, "docker/app:1.0", "--format", "v2s2", tag="app")
    registry.push(path, "multi/app:latest", "--all", "--preserve-digests", tag="multi")
    registry.push(path, "docker/multi:latest", "--all", "--format", "v2s2", tag="multi")
    registry.push(path, "art/thing:latest", "--preserve-digests", tag="thing")


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(str(tmp_path / "data"))


def pull(
    registry: Registry, name: str, blobs: Blobs, *, platform: str = "linux/amd64", progress: NoProgress | None = None
) -> Fetched:
    reference = parse_reference(f"{registry.address}/{name}")
    return fetch(reference, blobs=blobs, settings=Settings(), platform=platform, progress=progress or NoProgress())


def assert_complete(fetched: Fetched, blobs: Blobs) -> None:
    """Every blob of the image is there, and is what its name says."""
    for digest in (fetched.digest, fetched.manifest_digest, fetched.config_digest, *(d.digest for d in fetched.layers)):
        data = Path(blobs.path(digest)).read_bytes()
        assert "sha256:" + hashlib.sha256(data).hexdigest() == digest
    assert not os.listdir(Path(blobs.root) / "incoming")


def test_an_image_with_gzip_zstd_and_plain_layers_arrives_whole_and_in_order(registry: Registry, blobs: Blobs) -> None:
    fetched = pull(registry, "oci/mixed", blobs)
    assert_complete(fetched, blobs)
    suffixes = [layer.media_type.rpartition(".tar")[2] for layer in fetched.layers]
    assert suffixes == ["+gzip", "+zstd", ""]
    assert Path(blobs.path(fetched.layers[2].digest)).read_bytes() == TOP
    assert json.loads(fetched.config)["config"]["Cmd"] == ["/bin/true"]
    assert fetched.digest == fetched.manifest_digest


def test_a_docker_schema_2_image_arrives(registry: Registry, blobs: Blobs) -> None:
    fetched = pull(registry, "docker/app:1.0", blobs)
    assert_complete(fetched, blobs)
    assert {layer.media_type for layer in fetched.layers} == {"application/vnd.docker.image.rootfs.diff.tar.gzip"}


@pytest.mark.parametrize("name", ["multi/app", "docker/multi"])
def test_an_index_gives_the_image_of_the_platform_that_was_asked_for(
    registry: Registry, blobs: Blobs, name: str
) -> None:
    amd64 = pull(registry, name, blobs, platform="linux/amd64")
    arm64 = pull(registry, name, blobs, platform="arm64")
    assert json.loads(amd64.config)["architecture"] == "amd64"
    assert json.loads(arm64.config)["architecture"] == "arm64"
    assert amd64.digest == arm64.digest
    assert amd64.manifest_digest != arm64.manifest_digest
    assert_complete(amd64, blobs)
    assert_complete(arm64, blobs)


def test_a_platform_that_is_not_there_is_answered_with_those_that_are(registry: Registry, blobs: Blobs) -> None:
    with pytest.raises(NotFound, match=r"no image for platform linux/s390x in .*: it has linux/amd64, linux/arm64/v8"):
        pull(registry, "multi/app", blobs, platform="linux/s390x")


def test_a_pull_by_digest_takes_exactly_that_manifest(registry: Registry, blobs: Blobs) -> None:
    by_tag = pull(registry, "multi/app", blobs)
    by_digest = pull(registry, f"multi/app@{by_tag.manifest_digest}", blobs)
    assert by_digest.manifest_digest == by_tag.manifest_digest
    assert by_digest.digest == by_tag.manifest_digest


def test_layers_that_are_there_are_not_fetched_again(registry: Registry, blobs: Blobs) -> None:
    pull(registry, "multi/app", blobs, platform="amd64")
    diary = Diary()
    fetched = pull(registry, "multi/app", blobs, platform="arm64", progress=diary)
    old, new = (layer.digest[7:19] for layer in fetched.layers)
    assert diary.finished == {old: "Already exists", new: "Download complete"}
    assert list(diary.bytes) == [new]


def test_progress_counts_every_byte_of_every_layer(registry: Registry, blobs: Blobs) -> None:
    diary = Diary()
    fetched = pull(registry, "oci/mixed", blobs, progress=diary)
    sizes = {layer.digest[7:19]: layer.size for layer in fetched.layers}
    assert diary.totals == sizes
    assert diary.bytes == sizes
    assert diary.messages == ["latest: Pulling from oci/mixed"]


def test_an_unknown_image_is_not_found_in_one_line(registry: Registry, blobs: Blobs) -> None:
    with pytest.raises(NotFound) as caught:
        pull(registry, "no/such:1", blobs)
    assert caught.value.what == f"manifest for {registry.address}/no/such:1 not found"
    assert "\n" not in str(caught.value)
    assert not os.path.exists(blobs.root)


def test_a_registry_that_is_not_there_is_unreachable(blobs: Blobs) -> None:
    with pytest.raises(Unavailable) as caught:
        fetch(parse_reference("127.0.0.1:1/x"), blobs=blobs, settings=Settings(), progress=NoProgress())
    assert str(caught.value) == "cannot reach registry 127.0.0.1:1: connection refused"


def test_something_that_is_no_image_is_refused_by_its_kind(registry: Registry, blobs: Blobs) -> None:
    with pytest.raises(Unsupported, match="helm"):
        pull(registry, "art/thing", blobs)


def test_a_layer_that_was_changed_in_the_registry_never_becomes_visible(tmp_path: Path, blobs: Blobs) -> None:
    with running_registry(tmp_path / "registry") as registry:
        layout = Layout(tmp_path / "oci")
        layout.add_image([(BASE, "gzip"), (MIDDLE, "gzip")], tag="bad")
        registry.push(layout.path, "bad:latest", "--preserve-digests", tag="bad")
        layers = pull(registry, "bad", Blobs(str(tmp_path / "good"))).layers
        damaged = registry.blob_file(layers[1].digest)
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 1
        damaged.write_bytes(content)
        with pytest.raises(InvalidArgument) as caught:
            pull(registry, "bad", blobs)
    assert layers[1].digest in str(caught.value)
    assert "sha256:" + hashlib.sha256(content).hexdigest() in str(caught.value)
    assert not blobs.has(layers[1].digest)
    assert not os.listdir(Path(blobs.root) / "incoming")


def test_many_pulls_of_one_image_at_once_all_succeed(registry: Registry, blobs: Blobs) -> None:
    failures: list[CloisonError] = []

    def one() -> None:
        try:
            pull(registry, "oci/mixed", blobs)
        except CloisonError as err:
            failures.append(err)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert_complete(pull(registry, "oci/mixed", blobs), blobs)


def test_an_image_for_another_platform_than_asked_for_is_not_found(registry: Registry, blobs: Blobs) -> None:
    with pytest.raises(NotFound, match="no image for platform linux/arm64 in .*it is for linux/amd64, not linux/arm64"):
        pull(registry, "oci/mixed", blobs, platform="linux/arm64")


def test_an_interrupted_pull_ends_at_once_and_leaves_only_the_beginning_of_its_blob(tmp_path: Path) -> None:
    data = os.urandom(1 << 20)
    with ScriptedRegistry() as server:
        document = json.dumps(
            {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(data)]}}
        )
        config = server.add_blob(document.encode())
        layer = server.add_blob(data)
        server.add_manifest(
            {
                "schemaVersion": 2,
                "config": {"mediaType": OCI_CONFIG, "digest": config, "size": len(document)},
                "layers": [{"mediaType": OCI_LAYER, "digest": layer, "size": len(data)}],
            }
        )

        def stall(exchange: Exchange) -> None:
            exchange.head(200, content_length=str(len(data)))
            exchange.send(data[: 512 << 10])
            exchange.wait(30)

        server.on(f"/v2/app/blobs/{layer}", stall)
        script = (
            "import sys; from cloison.images.progress import NoProgress; from image_pull import fetch\n"
            "from cloison.model.reference import parse_reference; from cloison.model.settings import Settings\n"
            "from cloison.store.blobs import Blobs\n"
            "name, root = sys.argv[1:]\n"
            "fetch(parse_reference(name), blobs=Blobs(root), settings=Settings(), progress=NoProgress())\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script, f"{server.address}/app", str(tmp_path)],
            stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 30
            while not any(entry.stat().st_size for entry in tmp_path.glob("blobs/incoming/*")):
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            begun = time.monotonic()
            _, complaint = process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait()
    assert time.monotonic() - begun < 10
    assert b"KeyboardInterrupt" in complaint
    (begun_blob,) = tmp_path.glob("blobs/incoming/*")  # as far as it came, for the next pull
    assert begun_blob.name == f"sha256-{layer[7:]}.partial"
    assert begun_blob.read_bytes() == data[: 512 << 10]
    assert not (tmp_path / "blobs/sha256" / layer[7:]).exists()
