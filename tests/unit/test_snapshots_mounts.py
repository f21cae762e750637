"""Overlay snapshots as mount options, without mounting any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloison.errors import Conflict, InvalidArgument, NotFound, Unavailable
from cloison.snapshots.lookup import read_small_file
from cloison.snapshots.overlay import Overlay

BASE, TOP = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    driver = Overlay(str(tmp_path))
    for layer, mode in ((BASE, 0o755), (TOP, 0o751)):
        os.makedirs(driver.layer_path(layer))
        os.chmod(driver.layer_path(layer), mode)
    return driver


def test_the_mount_names_layers_topmost_first_then_the_writable_directories(overlay: Overlay, tmp_path: Path) -> None:
    mount = overlay.prepare("c1", [BASE, TOP], volatile=True)
    home = f"{tmp_path}/snapshots/overlay/containers/c1"
    assert (mount.type, mount.source, mount.target) == ("overlay", "overlay", "/")
    assert mount.options == (
        f"lowerdir+={overlay.layer_path(TOP)}", f"lowerdir+={overlay.layer_path(BASE)}",
        f"lowerdir+={overlay.mountpoints}", f"upperdir={home}/upper",
        f"workdir={home}/work", "volatile", "index=off", "metacopy=off", "redirect_dir=nofollow",
    )  # fmt: skip
    assert overlay.mount_of("c1", [BASE, TOP], volatile=True) == mount
    assert "volatile" not in overlay.mount_of("c1", [BASE, TOP], volatile=False).options


def test_the_containers_root_has_the_attributes_of_the_topmost_layer(overlay: Overlay, tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        overlay.prepare("c1", [BASE, TOP], volatile=False)
    finally:
        os.umask(old)
    home = tmp_path / "snapshots/overlay/containers/c1"
    assert (home / "upper").stat().st_mode & 0o7777 == 0o751
    assert home.stat().st_mode & 0o7777 == 0o700


def test_a_second_snapshot_of_the_same_name_is_a_conflict(overlay: Overlay) -> None:
    overlay.prepare("c1", [BASE], volatile=False)
    with pytest.raises(Conflict):
        overlay.prepare("c1", [BASE], volatile=False)


def test_a_missing_layer_or_snapshot_is_not_found(overlay: Overlay) -> None:
    with pytest.raises(NotFound, match="layer sha256:cccc"):
        overlay.prepare("c1", ["sha256:" + "c" * 64], volatile=False)
    with pytest.raises(NotFound):
        overlay.mount_of("c1", [BASE], volatile=False)
    assert list(overlay.list_containers()) == []


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".", "..", ".hidden", "a\0b", "a\nb"])
def test_a_name_that_is_no_file_name_never_becomes_a_path(overlay: Overlay, name: str) -> None:
    for use in (overlay.remove, overlay.usage):
        with pytest.raises(InvalidArgument):
            use(name)
    with pytest.raises(InvalidArgument):
        overlay.prepare(name, [BASE], volatile=False)


def test_removing_a_snapshot_takes_everything_and_follows_nothing(overlay: Overlay, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").write_text("here")
    overlay.prepare("c1", [BASE], volatile=False)
    upper = tmp_path / "snapshots/overlay/containers/c1/upper"
    (upper / "link").symlink_to(canary)
    (upper / "dir").mkdir()
    (upper / "dir" / "link").symlink_to(canary / "file")
    (upper / os.fsdecode(b"not utf-8 \xff")).mkdir()
    (upper / "closed").mkdir(mode=0)
    assert overlay.remove("c1") is True
    assert overlay.remove("c1") is False
    assert (canary / "file").read_text() == "here"
    assert list(overlay.list_containers()) == []


def test_a_tree_deeper_than_descriptors_last_is_removed(overlay: Overlay, tmp_path: Path) -> None:
    overlay.prepare("c1", [BASE], volatile=False)
    fd = os.open(tmp_path / "snapshots/overlay/containers/c1/upper", os.O_RDONLY)
    for _ in range(2500):
        os.mkdir("d", dir_fd=fd)
        child = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = child
    os.close(fd)
    assert overlay.remove("c1") is True
    assert list(overlay.list_containers()) == []


def test_usage_counts_what_the_container_wrote(overlay: Overlay, tmp_path: Path) -> None:
    overlay.prepare("c1", [BASE], volatile=False)
    before = overlay.usage("c1")
    upper = tmp_path / "snapshots/overlay/containers/c1/upper"
    (upper / "file").write_bytes(os.urandom(100_000))
    os.link(upper / "file", upper / "again")
    assert 100_000 <= overlay.usage("c1") - before < 150_000
    assert overlay.usage("none") == 0


def test_the_mark_of_a_volatile_mount_is_cleared_within_one_boot_only(overlay: Overlay, tmp_path: Path) -> None:
    overlay.prepare("c1", [BASE], volatile=True)
    mark = tmp_path / "snapshots/overlay/containers/c1/work/work/incompat"
    mark.mkdir(parents=True)
    (mark / "volatile").touch()
    os.utime(mark / "volatile", (1, 1))
    with pytest.raises(Unavailable, match="not kept on disk"):
        overlay.mount_of("c1", [BASE], volatile=True)
    os.utime(mark / "volatile")
    overlay.mount_of("c1", [BASE], volatile=True)
    assert not mark.exists()


def test_layers_are_listed_and_removed_by_their_chain_id(overlay: Overlay) -> None:
    assert set(overlay.list_layers()) == {BASE, TOP}
    assert overlay.has(TOP)
    assert overlay.remove_layer(TOP) is True
    assert overlay.remove_layer(TOP) is False
    assert set(overlay.list_layers()) == {BASE}
    assert overlay.sweep() == 0


# --- opaque directories


def make_opaque(path: str | Path) -> None:
    try:
        os.setxattr(path, "trusted.overlay.opaque", b"y")
    except PermissionError:
        pytest.skip("needs root: trusted extended attributes")


def test_nothing_below_a_layer_with_an_opaque_root_is_mounted_or_looked_up(overlay: Overlay) -> None:
    lowest = "sha256:" + "c" * 64
    os.makedirs(overlay.layer_path(lowest))
    chain = [lowest, BASE, TOP]
    make_opaque(overlay.layer_path(BASE))
    layers = (overlay.layer_path(TOP), overlay.layer_path(BASE), overlay.mountpoints)
    shown = tuple(f"lowerdir+={path}" for path in layers)
    made = overlay.prepare("c1", chain, volatile=False)
    for mount in (made, overlay.mount_of("c1", chain, volatile=False), overlay.plan_mount("c1", chain, volatile=False)):
        assert tuple(option for option in mount.options if option.startswith("lowerdir")) == shown
    assert overlay.directories_of("c1", chain)[1:] == (overlay.layer_path(TOP), overlay.layer_path(BASE))


def test_an_opaque_directory_hides_the_file_of_the_layer_below(overlay: Overlay) -> None:
    layers = [Path(overlay.layer_path(layer)) for layer in (TOP, BASE)]
    for layer in layers:
        (layer / "etc").mkdir()
    (layers[1] / "etc/passwd").write_text("root")
    directories = overlay.directories_of("c1", [BASE, TOP])
    assert read_small_file(directories, "/etc/passwd") == b"root"
    make_opaque(layers[0] / "etc")
    assert read_small_file(directories, "/etc/passwd") == b""
    assert read_small_file(directories, "/etc/deeper/passwd") == b""
    assert read_small_file(directories, "/passwd") == b""
    (layers[0] / "etc/passwd").write_text("new")
    assert read_small_file(directories, "/etc/passwd") == b"new"
