"""A pull ends with an image that can run: layers unpacked and checked, or nothing at all."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.errors import InvalidArgument, NoSpace, NotFound, Unavailable
from cloison.images.progress import NoProgress
from cloison.oci.image import OCI_CONFIG, OCI_LAYER
from harness import Cloison, Roots
from image_store import Store
from registry_fixture import Layout, Registry, digest_of, is_available, running_registry
from scripted_registry import OCI_INDEX, OCI_MANIFEST, ScriptedRegistry
from unpack_fixture import archive, describe, file, folder, unpack

pytestmark = pytest.mark.skipif(not is_available(), reason="needs Debian's docker-registry and skopeo")

BASE = archive(folder("."), folder("etc", mode=0o750), *(file(f"etc/{i}", os.urandom(5000)) for i in range(200)))
TOP = archive(file("etc/top", b"top"), file("etc/.wh.7", b""))
OTHER = archive(file("other"))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    root = tmp_path_factory.mktemp("registry")
    layout = Layout(root / "oci")
    layout.add_image([(BASE, "gzip"), (TOP, "zstd")], tag="two")
    layout.add_image([(BASE, "gzip"), (OTHER, "plain")], tag="shared")
    members = [layout.add_image([(OTHER, "plain")], architecture=name) for name in ("amd64", "arm64")]
    layout.add_index(members, tag="multi")
    # a manifest whose second layer is not the one that its configuration names
    liar = layout.add_image([(BASE, "gzip"), (TOP, "gzip")], tag="liar")
    manifest_path = layout.path / "blobs/sha256" / str(liar["digest"]).removeprefix("sha256:")
    manifest = json.loads(manifest_path.read_text())
    manifest["layers"][1] = layout.add_blob(gzip.compress(OTHER, mtime=0), manifest["layers"][1]["mediaType"])
    made = layout.add_blob(json.dumps(manifest).encode(), manifest["mediaType"])
    index = json.loads((layout.path / "index.json").read_text())
    index["manifests"][-1].update(made)
    (layout.path / "index.json").write_text(json.dumps(index))
    with running_registry(root / "registry") as running:
        for tag in ("two", "shared", "liar"):
            running.push(layout.path, f"app:{tag}", tag=tag)
        running.push(layout.path, "app:multi", "--all", tag="multi")
        yield running


@pytest.fixture
def store() -> Iterator[Store]:
    roots = Roots()
    yield Store(roots)
    roots.remove()


class Messages(NoProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.finished: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

    def finish(self, item: str, message: str) -> None:
        self.finished.append(message)


def test_a_pulled_image_is_unpacked_layer_by_layer(store: Store, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.address}/app:two"
    news = Messages()
    image = store.images.pull(name, progress=news)
    assert store.images.find(name) == image
    below, top = (Path(store.snapshots.layer_path(layer)) for layer in image.layers)
    unpack(BASE, tmp_path / "base")
    assert describe(below) == describe(tmp_path / "base")
    assert (top / "etc/top").read_text() == "top"
    assert (top / "etc").stat().st_mode & 0o7777 == 0o750  # not described by its layer: as below
    assert image.size_bytes == 200 * 5000 + 3
    assert image.layer_sizes == (1_000_000, 3)
    assert news.lines[-1] == f"Status: Downloaded newer image for {name}"
    assert news.finished.count("Pull complete") == 2


def test_a_second_pull_says_so_and_brings_nothing(store: Store, registry: Registry) -> None:
    name = f"{registry.address}/app:two"
    first = store.images.pull(name)
    before = store.content()
    news = Messages()
    assert store.images.pull(name, progress=news) == first
    assert news.lines[-1] == f"Status: Image is up to date for {name}"
    assert store.content() == before


def test_layers_that_are_there_are_not_unpacked_again(store: Store, registry: Registry) -> None:
    two = store.images.pull(f"{registry.address}/app:two")
    news = Messages()
    shared = store.images.pull(f"{registry.address}/app:shared", progress=news)
    assert shared.layers[0] == two.layers[0]
    assert shared.layer_sizes[0] == two.layer_sizes[0]
    assert news.finished.count("Pull complete") == 1
    store.images.remove([f"{registry.address}/app:two"])
    assert set(store.snapshots.list_layers()) == set(shared.layers)
    store.images.remove([f"{registry.address}/app:shared"])
    assert store.is_empty(), store.content()


def test_a_pull_by_digest_is_found_by_that_digest(store: Store, registry: Registry) -> None:
    tagged = store.images.pull(f"{registry.address}/app:two")
    name = tagged.repo_digests[0]
    assert store.images.find(name) == tagged
    store.images.remove([f"{registry.address}/app:two"])
    again = store.images.pull(name)
    assert again.id == tagged.id
    assert [listing.reference for listing in store.images.list()] == [name]


def test_a_layer_that_is_not_what_the_configuration_says_is_never_visible(store: Store, registry: Registry) -> None:
    with pytest.raises(InvalidArgument, match="does not match"):
        store.images.pull(f"{registry.address}/app:liar")
    assert not store.images.list()
    assert list(store.snapshots.list_layers()) == []
    store.images.collect()
    assert store.is_empty(), store.content()


def damage(path: Path) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_blob_that_the_disk_has_damaged_is_told_and_mended_by_the_next_pull(store: Store, registry: Registry) -> None:
    name = f"{registry.address}/app:two"
    image = store.images.pull(name)
    manifest = json.loads(store.blobs.read(image.digest))
    for descriptor in manifest["layers"]:
        for layer in list(store.snapshots.list_layers()):
            store.snapshots.remove_layer(layer)
        damage(Path(store.blobs.path(descriptor["digest"])))
        with pytest.raises(Unavailable, match=f"blob {descriptor['digest']} was damaged on disk"):
            store.images.pull(name)
        assert store.images.pull(name) == image
        assert (store.tree(name) / "etc/top").read_text() == "top"
    for digest in (image.digest, image.id):  # a pull reads these anyway: it mends them at once
        damage(Path(store.blobs.path(digest)))
        assert store.images.pull(name) == image
        store.blobs.check(digest)


def test_the_digest_that_users_see_is_the_one_the_tag_names_in_the_registry(store: Store, registry: Registry) -> None:
    name = f"{registry.address}/app"
    image = store.images.pull(f"{name}:multi")
    (shown,) = image.repo_digests
    assert shown != f"{name}@{image.digest}"
    for digest in (shown, f"{name}@{image.digest}"):
        assert store.images.find(digest) == image
    assert store.images.pull(shown).id == image.id
    assert list(store.images.remove([f"{name}:multi", shown]))[:2] == [f"Untagged: {name}:multi", f"Untagged: {shown}"]
    assert store.is_empty(), store.content()


def test_a_pull_for_another_platform_is_not_what_is_there(store: Store, registry: Registry) -> None:
    image = store.images.pull(f"{registry.address}/app:multi", platform="linux/arm64")
    find = store.images.ensure
    assert find(f"{registry.address}/app:multi", policy="never", platform="linux/arm64/v8") == image
    with pytest.raises(NotFound):
        find(f"{registry.address}/app:multi", policy="never", platform="linux/amd64")


class Broken(NoProgress):
    """Fails at the second layer, once the first is complete."""

    def __init__(self, first: str, failure: BaseException) -> None:
        self._first = first.removeprefix("sha256:")[:12]
        self._failure = failure
        self._complete = threading.Event()

    def start(self, item: str, total_bytes: int, action: str) -> None:
        if item != self._first:
            self._complete.wait(10)
            raise self._failure

    def finish(self, item: str, message: str) -> None:
        if item == self._first:
            self._complete.set()


@pytest.mark.parametrize(
    ("failure", "is_kept"),
    [
        (Unavailable("the registry has gone"), True),
        (KeyboardInterrupt(), True),
        (NoSpace("cannot write"), False),
        (InvalidArgument("not what was promised"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_pull_that_was_cut_short_keeps_what_is_complete_and_any_other_failure_nothing(
    store: Store, registry: Registry, failure: BaseException, is_kept: bool
) -> None:
    name = f"{registry.address}/app:two"
    image = store.images.pull(name)
    first = json.loads(store.blobs.read(image.digest))["layers"][0]["digest"]
    store.images.remove([name])
    with pytest.raises(type(failure)):
        store.images.pull(name, progress=Broken(first, failure))
    assert store.blobs.has(first) == is_kept
    assert store.is_empty() != is_kept
    assert store.images.pull(name) == image


def test_ensure_pulls_what_is_missing_and_only_that(store: Store, registry: Registry) -> None:
    name = f"{registry.address}/app:two"
    news = Messages()
    image = store.images.ensure(name, progress=news)
    assert news.lines[0] == f"Unable to find image '{name}' locally"
    quiet = Messages()
    assert store.images.ensure(name, progress=quiet) == image
    assert quiet.lines == []
    assert store.images.ensure(name, policy="always", progress=quiet) == image
    assert quiet.lines
    with pytest.raises(NotFound):
        store.images.ensure(f"{registry.address}/app:two", policy="missing", platform="linux/riscv64")


# --- nothing has changed ----------------------------------------------------------------------------------------------


@pytest.fixture
def scripted() -> Iterator[ScriptedRegistry]:
    """A registry with app:latest for two platforms, that counts what it is asked."""
    with ScriptedRegistry() as server:
        members = []
        for name in ("amd64", "arm64"):
            config = {"architecture": name, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(OTHER)]}}
            blob = json.dumps(config).encode()
            manifest = {
                "schemaVersion": 2, "mediaType": OCI_MANIFEST,
                "config": {"mediaType": OCI_CONFIG, "digest": server.add_blob(blob), "size": len(blob)},
                "layers": [{"mediaType": OCI_LAYER, "digest": server.add_blob(OTHER), "size": len(OTHER)}],
            }  # fmt: skip
            body = json.dumps(manifest).encode()
            platform = {"architecture": name, "os": "linux"}
            digest = server.add_manifest(body, tag=name)
            members.append({"mediaType": OCI_MANIFEST, "digest": digest, "size": len(body), "platform": platform})
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": members}
        server.add_manifest(index, media_type=OCI_INDEX)
        yield server


def test_a_pull_of_what_is_here_is_one_head_and_loads_no_http_library(scripted: ScriptedRegistry) -> None:
    roots = Roots()
    try:
        command = Cloison(roots)
        name = f"{scripted.address}/app"
        command.ok("pull", "--platform", "linux/amd64", name)
        asked = len(scripted.requests)
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "cloison", "pull", "--platform", "linux/amd64", name],
            env=roots.environ, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert [request.method for request in scripted.requests[asked:]] == ["HEAD"]
        assert f"Status: Image is up to date for {name}:latest" in done.stdout
        assert "registries_conf" in done.stderr
        assert "urllib3" not in done.stderr
    finally:
        roots.remove()


def test_the_same_index_is_another_image_for_another_platform(store: Store, scripted: ScriptedRegistry) -> None:
    name = f"{scripted.address}/app"
    one = store.images.pull(name, platform="linux/amd64")
    two = store.images.pull(name, platform="linux/arm64")
    assert (one.architecture, two.architecture) == ("amd64", "arm64")
    asked = len(scripted.requests)
    assert store.images.pull(f"{name}@{two.digest}", platform="linux/arm64").id == two.id
    by_index = two.repo_digests[0]
    asked = len(scripted.requests)
    assert store.images.pull(by_index, platform="linux/arm64").id == two.id
    assert len(scripted.requests) == asked  # a digest names one content for ever


def test_a_registry_without_head_or_digest_is_pulled_from_all_the_same(
    store: Store, scripted: ScriptedRegistry
) -> None:
    name = f"{scripted.address}/app"
    image = store.images.pull(name, platform="linux/amd64")
    for answer in (lambda e: e.head(405), lambda e: e.head(200, content_length="7")):
        scripted.on("HEAD /v2/app/manifests/latest", answer)
        assert store.images.pull(name, platform="linux/amd64") == image
