"""CLOISON_LAYER_BLOBS=drop: compressed layers go once they are unpacked, and come again when they are needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Cloison, Roots
from image_store import Store
from registry_fixture import Layout, Registry, is_available, running_registry
from unpack_fixture import archive, file, folder

pytestmark = pytest.mark.skipif(not is_available(), reason="needs Debian's docker-registry and skopeo")

SHARED = archive(folder("."), file("shared", os.urandom(200_000)))


class Dropping(Roots):
    @property
    def environ(self) -> dict[str, str]:
        return {**super().environ, "CLOISON_LAYER_BLOBS": "drop"}


@pytest.fixture
def command() -> Iterator[Cloison]:
    roots = Dropping()
    yield Cloison(roots)
    roots.remove()


@pytest.fixture
def store(command: Cloison) -> Store:
    return Store(command.roots)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    root = tmp_path_factory.mktemp("dropped")
    layout = Layout(root / "oci")
    for name in ("one", "two"):
        layout.add_image([(SHARED, "gzip"), (archive(file(name, os.urandom(50_000))), "gzip")], tag=name)
    with running_registry(root / "registry") as running:
        for name in ("one", "two"):
            running.push(layout.path, name, tag=name)
        yield running


def layers_of(store: Store, name: str) -> list[str]:
    return [layer["digest"] for layer in json.loads(store.blobs.read(store.images.find(name).digest))["layers"]]


def test_a_pulled_image_is_kept_unpacked_alone(command: Cloison, store: Store, registry: Registry) -> None:
    name = f"{registry.address}/one"
    command.ok("pull", "-q", name)
    assert not any(store.blobs.has(digest) for digest in layers_of(store, name))
    assert command.ok("system", "check") == "No problem found"
    assert "Image is up to date" in command.ok("pull", name)
    assert not any(store.blobs.has(digest) for digest in layers_of(store, name))
    command.ok("image", "prune", "-af")
    assert store.is_empty(), store.content()


def test_layers_that_are_unpacked_are_not_fetched_for_another_image(
    command: Cloison, store: Store, registry: Registry
) -> None:
    command.ok("pull", "-q", f"{registry.address}/one")
    shared = layers_of(store, f"{registry.address}/one")[0]
    hidden = registry.blob_file(shared).with_name("hidden")
    os.rename(registry.blob_file(shared), hidden)
    try:
        text = command.ok("pull", f"{registry.address}/two")
    finally:
        os.rename(hidden, registry.blob_file(shared))
    assert f"{shared[7:19]}: Already exists" in text
    assert command.ok("system", "check") == "No problem found"


def test_a_dropped_layer_is_saved_and_pushed_with_the_same_digests(
    command: Cloison, store: Store, registry: Registry, tmp_path: Path
) -> None:
    name = f"{registry.address}/one"
    command.ok("pull", "-q", name)
    image = store.images.find(name)
    layers = layers_of(store, name)
    command.ok("save", "-o", f"{tmp_path}/one.tar", name)
    members = subprocess.run(["tar", "-tf", f"{tmp_path}/one.tar"], capture_output=True, text=True).stdout.split()
    assert {f"blobs/sha256/{digest[7:]}" for digest in layers} <= set(members)
    assert not any(store.blobs.has(digest) for digest in layers)  # and gone again
    command.ok("tag", name, f"{registry.address}/copy:1")
    assert image.digest in command.ok("push", f"{registry.address}/copy:1")
    assert not any(store.blobs.has(digest) for digest in layers)


def test_an_image_that_has_no_other_source_keeps_its_layers(
    command: Cloison, store: Store, registry: Registry, tmp_path: Path
) -> None:
    name = f"{registry.address}/one"
    command.ok("pull", "-q", name)
    command.ok("save", "-o", f"{tmp_path}/one.tar", name)
    command.ok("create", "--name", "made", "--network", "none", name, "/x")
    command.ok("commit", "-c", "ENV A=1", "made", "mine:1")  # on top of what was dropped
    command.ok("rm", "made")
    assert all(store.blobs.has(digest) for digest in layers_of(store, "mine:1"))
    command.ok("rmi", name)
    shutil.copy(tmp_path / "one.tar", tmp_path / "two.tar")
    command.ok("rmi", "mine:1")
    command.ok("load", "-i", f"{tmp_path}/two.tar")
    assert all(store.blobs.has(digest) for digest in layers_of(store, name))


def test_a_registry_that_is_gone_is_one_clear_line(command: Cloison, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.address}/one"
    command.ok("pull", "-q", name)
    blobs = registry.root / "data/docker/registry/v2/repositories/one"
    os.rename(blobs, blobs.with_name("away"))
    try:
        result = command("save", "-o", f"{tmp_path}/one.tar", name)
    finally:
        os.rename(blobs.with_name("away"), blobs)
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if not line.startswith("hint: ")]
    assert len(lines) == 1 and lines[0].startswith("cloison: cannot bring back 2 compressed layers of ")
    assert os.listdir(tmp_path) == []
    assert "invalid CLOISON_LAYER_BLOBS: 'maybe'" in command("images", CLOISON_LAYER_BLOBS="maybe").stderr
