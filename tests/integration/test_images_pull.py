"""A pull ends with an image that can run: layers unpacked and checked, or nothing at all."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.errors import InvalidArgument, NotFound
from cloison.images.progress import NoProgress
from harness import Roots
from image_store import Store
from registry_fixture import Layout, Registry, is_available, running_registry
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
