"""``image mount``: an image's files on the host, read-only, for as long as somebody looks."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Cloison, Roots, own_mounts
from image_store import Store
from unpack_fixture import archive, file, folder


@pytest.fixture
def command() -> Iterator[Cloison]:
    roots = Roots()
    yield Cloison(roots)
    roots.remove()


@pytest.fixture
def store(command: Cloison) -> Store:
    made = Store(command.roots)
    made.images.import_rootfs(io.BytesIO(archive(folder("."), folder("etc"), file("etc/a", mode=0o4755))), "one:1")
    return made


def two_layers(command: Cloison, store: Store, tmp_path: Path) -> None:
    """``two:1``, which deletes a file of ``one:1`` and adds another."""
    path = tmp_path / "save.tar"
    command.ok("create", "--name", "made", "--network", "none", "one:1", "/x")
    upper = store.root / "snapshots/overlay/containers" / command.inspect("made")["Id"] / "upper"
    (upper / "etc").mkdir()
    os.mknod(upper / "etc/a", 0o020000, 0)
    (upper / "b").write_text("b")
    command.ok("commit", "made", "two:1")
    command.ok("rm", "made")
    command.ok("save", "-o", str(path), "two:1")


def test_a_mounted_image_shows_its_files_read_only(command: Cloison, store: Store, tmp_path: Path) -> None:
    two_layers(command, store, tmp_path)
    for name, expected in (("one:1", {"etc"}), ("two:1", {"etc", "b"})):
        path = Path(command.ok("image", "mount", name))
        assert set(os.listdir(path)) == expected
        assert sorted(os.listdir(path / "etc")) == (["a"] if name == "one:1" else [])
        with pytest.raises(OSError, match="Read-only"):
            (path / "new").touch()
        options = subprocess.run(["findmnt", "-no", "OPTIONS", path], capture_output=True, text=True).stdout.split(",")
        assert {"ro", "nosuid", "nodev"} <= set(options)
        assert command.ok("image", "mount", name) == str(path)  # once is enough
    assert len(own_mounts(command.roots)) == 2
    listed = command.ok("image", "mount")
    assert "one:1" in listed and "two:1" in listed
    assert command.ok("image", "unmount", "one:1") == store.images.find("one:1").id
    assert command("image", "unmount", "one:1").stderr.endswith("is not mounted\n")
    command.ok("image", "unmount", "--all")
    assert own_mounts(command.roots) == []
    assert os.listdir(f"{command.roots.run_root}/image-mounts") == []


def test_a_mounted_image_is_not_removed(command: Cloison, store: Store) -> None:
    path = Path(command.ok("image", "mount", "one:1"))
    result = command("rmi", "-f", "one:1")
    assert result.returncode == 1
    assert f"image is mounted at {path}" in result.stderr
    assert command.ok("image", "prune", "-af") == "Total reclaimed space: 0B"
    assert (path / "etc/a").exists()
    (Path(store.snapshots.layer_path(store.images.find("one:1").layers[0])) / "etc/a").write_text("changed")
    assert command("system", "check", "--repair").returncode == 1  # not under somebody's eyes
    command.ok("image", "umount", "one:1")
    command.ok("system", "check", "--repair")
    command.ok("rmi", "one:1")
    assert store.is_empty(), store.content()


def test_names_are_taken_away_and_the_image_stays(command: Cloison, store: Store) -> None:
    image_id = store.images.find("one:1").id
    for name in ("two:1", "three:1"):
        command.ok("tag", "one:1", name)
    command.ok("untag", "one:1", "two:1")
    assert command("untag", "one:1", "three:1", "none:1").returncode == 1
    assert sorted(listing.reference for listing in store.images.list()) == ["one:1", "three:1"]
    command.ok("untag", image_id)
    assert [(listing.reference, listing.image.id) for listing in store.images.list()] == [("", image_id)]


def test_what_is_not_there_is_not_mounted(command: Cloison, store: Store) -> None:
    assert command("image", "mount", "none:1").stderr == "cloison: No such image: none:1\n"
    assert own_mounts(command.roots) == []
