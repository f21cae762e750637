"""Valid archives unpack as GNU tar and bsdtar unpack them, and layers stack as overlay shows them."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloison.archive.unpack import apply_layer
from cloison.errors import InvalidArgument
from cloison.model.mount import Mount
from cloison.snapshots.overlay import Overlay
from unpack_fixture import CAPABILITY, archive, describe, file, folder, opened, symlink, unpack


def tar(*words: str | Path, **options: object) -> bytes:
    return subprocess.run(["tar", *map(str, words)], check=True, capture_output=True, **options).stdout  # type: ignore[call-overload,no-any-return]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one of everything that a layer can hold."""
    root = tmp_path_factory.mktemp("source") / "tree"
    root.mkdir()
    rng = random.Random(1)
    (root / "empty").touch()
    (root / "block").write_bytes(rng.randbytes(512))
    (root / "large").write_bytes(rng.randbytes(3_000_001))
    (root / "script").write_text("#!/bin/sh\n")
    os.chmod(root / "script", 0o4755)
    for depth in range(1, 40, 7):
        path = root.joinpath(*["directory-with-a-name"] * depth)
        path.mkdir(parents=True, exist_ok=True)
        (path / ("file-" + "n" * (depth * 5))).write_text(str(depth))
    (root / "ünïcode ☃").write_text("x")
    Path(os.fsdecode(os.fsencode(root) + b"/not-utf8-\xff\xfe")).write_text("x")
    (root / "new\nline").write_text("x")
    os.link(root / "large", root / "directory-with-a-name" / "hard")
    os.symlink("../large", root / "directory-with-a-name" / "link")
    os.symlink("/absolute/" + "t" * 150, root / "long-link")
    os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    os.mkfifo(root / "fifo", 0o640)
    (root / "sticky").mkdir()
    os.chmod(root / "sticky", 0o1777)
    (root / "owned").write_text("x")
    os.chown(root / "owned", 3_000_000, 70_000)
    os.setxattr(root / "owned", "user.note", b"binary \0\xff value")
    (root / "capable").write_text("x")
    os.setxattr(root / "capable", "security.capability", CAPABILITY)
    (root / "shared").mkdir()
    os.chown(root / "shared", 0, 70_000)
    os.chmod(root / "shared", 0o2775)
    os.setxattr(root / "shared", "user.empty", b"")
    (root / "shared" / "setgid").write_text("x")
    os.chmod(root / "shared" / "setgid", 0o2755)
    os.mknod(root / "disk", 0o60660, os.makedev(259, 70_000))
    os.link(root / "long-link", root / "shared" / ("l" * 120), follow_symlinks=False)
    with open(root / "sparse", "wb") as sparse:
        for offset in range(0, 20_000_000, 700_000):
            sparse.seek(offset)
            sparse.write(rng.randbytes(5000))
        sparse.truncate(30_000_000)
    with open(root / "hole", "wb") as hole:
        hole.truncate(10_000_000)
    for number, path in enumerate(sorted(root.rglob("*"))):
        when = 1_600_000_000_000_000_000 + number * 1_234_567_891
        os.utime(path, ns=(when, when), follow_symlinks=False)
    # in base 256, where there is no PAX
    for name, seconds in (("empty", -1), ("block", -(2**31) + 1), ("hole", 2**33 + 5)):
        os.utime(root / name, ns=(seconds * 10**9, seconds * 10**9))
    os.utime(root, ns=(10**18, 10**18))
    return root


FORMATS = {
    "pax": ["--format=posix", "--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.capability"],
    "gnu": ["--format=gnu"],
    "pax sparse 0.0": ["--format=posix", "--sparse", "--sparse-version=0.0"],
    "pax sparse 0.1": ["--format=posix", "--sparse", "--sparse-version=0.1"],
    "pax sparse 1.0": ["--format=posix", "--sparse", "--sparse-version=1.0"],
    "gnu sparse": ["--format=gnu", "--sparse"],
}


COMPRESSIONS = ["--gzip", "--zstd", "--xz", "--bzip2"]


@pytest.mark.parametrize(
    ("format", "compression"), [*((name, "") for name in FORMATS), *(("pax", word) for word in COMPRESSIONS)]
)
def test_a_tree_unpacks_as_gnu_tar_unpacks_it(tree: Path, tmp_path: Path, format: str, compression: str) -> None:
    data = tar("-C", tree, "-c", *FORMATS[format], *([compression] if compression else []), ".")
    (tmp_path / "gnu").mkdir()
    xattrs = ["--xattrs", "--xattrs-include=*"]
    tar("-C", tmp_path / "gnu", "-xp", "--same-owner", *xattrs, *([compression] if compression else []), input=data)
    applied = unpack(data, tmp_path / "ours")
    ours, gnu = describe(tmp_path / "ours"), describe(tmp_path / "gnu")
    assert ours == gnu
    assert applied.implied == ()
    assert applied.entries > len(gnu) - 2
    if format == "pax":
        assert ours == describe(tree)


@pytest.mark.parametrize("format", [name for name in FORMATS if "sparse" in name])
def test_holes_stay_holes(tree: Path, tmp_path: Path, format: str) -> None:
    unpack(tar("-C", tree, "-c", *FORMATS[format], "sparse", "hole"), tmp_path / "ours")
    assert (tmp_path / "ours/hole").stat().st_blocks * 512 < 100_000
    assert (tmp_path / "ours/sparse").stat().st_blocks * 512 < 5_000_000


@pytest.mark.parametrize("format", [name for name in FORMATS if "sparse" in name])
def test_a_file_beyond_octal_numbers_unpacks_as_gnu_tar_unpacks_it(tmp_path: Path, format: str) -> None:
    """Nine gigabytes: no size of that fits into eleven octal digits."""
    (tmp_path / "gnu").mkdir()
    with open(tmp_path / "huge", "wb") as file:
        for offset in (0, (8 << 30) - 10, 9 << 30):
            file.seek(offset)
            file.write(b"island" * 1000)
    data = tar("-C", tmp_path, "-c", *FORMATS[format], "huge")
    assert len(data) < 1 << 20
    tar("-C", tmp_path / "gnu", "-xp", input=data)
    unpack(data, tmp_path / "ours")
    islands = []
    for directory in ("gnu", "ours"):
        info = (tmp_path / directory / "huge").stat()
        assert (info.st_size, info.st_blocks * 512 < 1 << 20) == ((9 << 30) + 6000, True)
        with open(tmp_path / directory / "huge", "rb") as file:
            places = (0, (8 << 30) - 5000, (9 << 30) - 50)
            islands.append([os.pread(file.fileno(), 20_000, offset) for offset in places])
    assert islands[0] == islands[1]
    assert [piece.count(b"island") for piece in islands[1]] == [1000, 1000, 1000]


def test_v7_and_ustar_archives_unpack_too(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d" / "f").write_text("x")
    os.utime(source / "d", (5, 5))
    for format in ("v7", "ustar", "oldgnu"):
        (tmp_path / format).mkdir()
        data = tar("-C", source, "-c", f"--format={format}", "d")
        tar("-C", tmp_path / format, "-xp", input=data)
        unpack(data, tmp_path / f"{format}-ours")
        expected = describe(tmp_path / format)
        found = describe(tmp_path / f"{format}-ours")
        assert {key: expected[key] for key in ("d", "d/f")} == {key: found[key] for key in ("d", "d/f")}


def test_the_digest_is_that_of_the_plain_stream(tree: Path, tmp_path: Path) -> None:
    plain = tar("-C", tree, "-c", ".")
    expected = subprocess.run(["sha256sum"], input=plain, capture_output=True, check=True).stdout.split()[0].decode()
    packed = subprocess.run(["gzip", "-1"], input=plain, capture_output=True, check=True).stdout
    assert unpack(plain, tmp_path / "a").diff_id == unpack(packed, tmp_path / "b").diff_id == f"sha256:{expected}"


def test_modes_do_not_depend_on_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        unpack(archive(folder("a"), file("a/f"), file("implied/f"), folder("setgid", mode=0o2775)), tmp_path / "ours")
    finally:
        os.umask(old)
    modes = {key: value[0] for key, value in describe(tmp_path / "ours").items()}
    assert (modes["a"], modes["a/f"], modes["implied"]) == ("0o40755", "0o100644", "0o40755")
    assert modes["setgid"] == "0o42775"


# --- layers on layers


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    return Overlay(str(tmp_path / "data"))


@contextmanager
def mounted(mount: Mount, target: Path) -> Iterator[Path]:
    """The overlay as mount(8) understands it: layers in one option, topmost first."""
    lower = ":".join(option.removeprefix("lowerdir+=") for option in mount.options if option.startswith("lowerdir+="))
    others = [option for option in mount.options if not option.startswith("lowerdir+=")]
    target.mkdir(exist_ok=True)
    options = ",".join([f"lowerdir={lower}", *others])
    subprocess.run(["mount", "-t", "overlay", "cloison-test", "-o", options, target], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)


def stack(overlay: Overlay, *layers: bytes) -> list[str]:
    """Commit layers one on the other; made-up chain IDs."""
    chains = [f"sha256:{number:064x}" for number in range(1, len(layers) + 1)]
    for number, data in enumerate(layers):
        overlay.apply(chains[number], io.BytesIO(data), below=chains[:number])
    return chains


def test_whiteouts_and_opaque_directories_hide_what_lies_below(overlay: Overlay, tmp_path: Path) -> None:
    base = archive(
        folder("."), file("gone"), file("kept"), folder("dir"), file("dir/below"), folder("opaque"),
        file("opaque/below"), folder("again"), file("again/below"), file("becomes-dir"),
        folder("becomes-file"), file("becomes-file/x"),
    )  # fmt: skip
    top = archive(
        folder("."), file(".wh.gone", b""), file("dir/above"), file("opaque/above"), file("opaque/.wh..wh..opq", b""),
        file(".wh.again", b""), file("again/above"), folder("becomes-dir"), file("becomes-dir/x"), file("becomes-file"),
    )  # fmt: skip
    chains = stack(overlay, base, top)
    mount = overlay.prepare("c", chains, volatile=False)
    with mounted(mount, tmp_path / "mnt") as root:
        names = names_in(root)
    assert names - names_in(Path(overlay.mountpoints)) == {
        "kept", "dir", "dir/below", "dir/above", "opaque", "opaque/above", "again", "again/above", "becomes-dir",
        "becomes-dir/x", "becomes-file",
    }  # fmt: skip


def names_in(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_an_opaque_root_hides_all_layers_below(overlay: Overlay, tmp_path: Path) -> None:
    layers = (
        archive(file("gone"), folder("d"), file("d/gone")), archive(file(".wh..wh..opq", b""), file("d/kept")),
        archive(folder("."), file("above")),
    )  # fmt: skip
    mount = overlay.prepare("c", stack(overlay, *layers), volatile=False)
    with mounted(mount, tmp_path / "mnt") as root:
        assert names_in(root) - names_in(Path(overlay.mountpoints)) == {"d", "d/kept", "above"}


def test_a_directory_that_a_layer_does_not_describe_looks_as_below(overlay: Overlay, tmp_path: Path) -> None:
    base = archive(
        folder(".", mode=0o711), folder("tmp", mode=0o1777, uid=7), folder("tmp/d", mode=0o700, gid=9, mtime=99)
    )
    chains = stack(overlay, base, archive(file("tmp/d/x"), file("other/x")))
    top = describe(Path(overlay.layer_path(chains[1])))
    below = describe(Path(overlay.layer_path(chains[0])))
    for name in (".", "tmp", "tmp/d"):
        assert top[name] == below[name]
    assert top["other"][0] == "0o40755"


def test_a_layer_is_invisible_until_it_is_committed_and_gone_when_wrong(overlay: Overlay, tmp_path: Path) -> None:
    chain = "sha256:" + "1" * 64
    staged = overlay.stage(io.BytesIO(archive(file("a"))))
    assert not overlay.has(chain)
    assert overlay.sweep() == 0  # somebody holds it
    staged.commit(chain)
    assert overlay.has(chain)
    staged.discard()
    assert overlay.has(chain)
    for data, diff_id in ((archive(file("a"), file("../x")), ""), (archive(file("a")), "sha256:" + "2" * 64)):
        with pytest.raises(InvalidArgument):
            overlay.apply("sha256:" + "3" * 64, io.BytesIO(data), diff_id=diff_id)
    assert list(overlay.list_layers()) == [chain]
    assert os.listdir(tmp_path / "data/snapshots/overlay/incoming") == []


def test_the_same_layer_twice_at_once_is_kept_once(overlay: Overlay, tmp_path: Path) -> None:
    chain = "sha256:" + "1" * 64
    first, second = (overlay.stage(io.BytesIO(archive(file("a")))) for _ in range(2))
    first.commit(chain)
    second.commit(chain)
    assert list(overlay.list_layers()) == [chain]
    assert os.listdir(tmp_path / "data/snapshots/overlay/incoming") == []


KILLED = """
import os, sys, io
from cloison.snapshots.overlay import Overlay
class Dying:
    def __init__(self, data): self.data = io.BytesIO(data)
    def read(self, size):
        data = self.data.read(4096)
        if self.data.tell() > 100_000: os.kill(os.getpid(), 9)
        return data
Overlay(sys.argv[1]).stage(Dying(open(sys.argv[2], "rb").read()))
"""


def test_what_a_killed_unpacker_left_is_swept(overlay: Overlay, tmp_path: Path) -> None:
    (tmp_path / "layer.tar").write_bytes(archive(*(file(f"d/{i}", bytes(3000)) for i in range(100))))
    argv = [sys.executable, "-c", KILLED, tmp_path / "data", tmp_path / "layer.tar"]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    assert subprocess.run(argv, env=environ, check=False).returncode == -9
    incoming = tmp_path / "data/snapshots/overlay/incoming"
    assert len(os.listdir(incoming)) == 2
    assert overlay.sweep() == 1
    assert os.listdir(incoming) == []


def test_removing_a_snapshot_stops_at_a_mount(overlay: Overlay, tmp_path: Path) -> None:
    from cloison.errors import Unavailable

    chains = stack(overlay, archive(file("a")))
    overlay.prepare("c", chains, volatile=False)
    inside = tmp_path / "data/snapshots/overlay/containers/c/upper/mnt"
    inside.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "cloison-test", inside], check=True)
    try:
        (inside / "canary").touch()
        with pytest.raises(Unavailable, match="mounted"):
            overlay.remove("c")
        assert (inside / "canary").exists()
    finally:
        subprocess.run(["umount", inside], check=True)
    assert overlay.remove("c") is True


def test_links_in_the_work_directory_of_a_used_overlay_are_removed_with_it(overlay: Overlay, tmp_path: Path) -> None:
    chains = stack(overlay, archive(folder("."), folder("d"), file("d/x")))
    mount = overlay.prepare("c", chains, volatile=True)
    with mounted(mount, tmp_path / "mnt") as root:
        (root / "d/x").unlink()
        (root / "new").symlink_to("/etc")
    again = overlay.mount_of("c", chains, volatile=True)  # clears the kernel's mark
    with mounted(again, tmp_path / "mnt") as root:
        assert not (root / "d/x").exists()
        assert os.readlink(root / "new") == "/etc"
    assert overlay.remove("c") is True


def test_a_symbolic_link_to_a_directory_of_a_lower_layer_is_followed_inside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with opened(root) as fd:
        applied = apply_layer(io.BytesIO(archive(symlink("lib", "usr/lib"), file("lib/x", b"x"))), root_fd=fd)
    assert (root / "usr/lib/x").read_text() == "x"
    assert applied.implied == (b"", b"usr", b"usr/lib")


def test_the_parent_of_the_member_before_is_not_taken_for_another(tmp_path: Path) -> None:
    names = ("a/b/", "a/b/c", "a/b//", "a/b//d", "./e", "/f", "a/./g", "i/", "j")
    members = [folder(name) if name.endswith("/") else file(name) for name in names]
    unpack(archive(*members), tmp_path / "ours")
    found = {path for path, value in describe(tmp_path / "ours").items() if str(value[0]).startswith("0o100")}
    assert found == {"a/b/c", "a/b/d", "e", "f", "a/g", "j"}
    with pytest.raises(InvalidArgument, match="'..'"):
        unpack(archive(file("a/b/c"), file("a/b/../h")), tmp_path / "other")
    with pytest.raises(InvalidArgument, match="whiteout"):
        unpack(archive(file(".wh.a/c"), file(".wh.a/d")), tmp_path / "third")


BSD_FORMATS = ["pax", "gnutar", "ustar", "v7"]
BSD = ["bsdtar", "--no-acls", "--no-fflags"]
# bsdtar packs a directory long before what is in it
GNU_AS_OTHERS = ["--xattrs", "--xattrs-include=*", "--delay-directory-restore"]


def bsdtar(*words: str | Path, **options: object) -> bytes:
    # names that are not UTF-8 make it exit 1 after it has done all, with a warning
    environ = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run([*BSD, *map(str, words)], capture_output=True, env=environ, **options)  # type: ignore[call-overload]
    assert done.returncode in (0, 1), done.stderr
    return done.stdout  # type: ignore[no-any-return]


def below(root: Path) -> dict[str, tuple[object, ...]]:
    """All but the root itself, of which bsdtar leaves the time alone."""
    found = describe(root)
    del found["."]
    return found


@pytest.mark.parametrize("format", FORMATS)
def test_a_tree_unpacks_as_bsdtar_unpacks_it(tree: Path, tmp_path: Path, format: str) -> None:
    data = tar("-C", tree, "-c", *FORMATS[format], ".")
    (tmp_path / "bsd").mkdir()
    bsdtar("-C", tmp_path / "bsd", "-xpf", "-", "--same-owner", "--numeric-owner", input=data)
    unpack(data, tmp_path / "ours")
    assert below(tmp_path / "ours") == below(tmp_path / "bsd")


@pytest.mark.parametrize("format", BSD_FORMATS)
def test_what_bsdtar_packs_unpacks_as_both_tars_unpack_it(tree: Path, tmp_path: Path, format: str) -> None:
    data = bsdtar("-C", tree, "-cf", "-", "--format", format, ".")
    for name in ("bsd", "gnu"):
        (tmp_path / name).mkdir()
    bsdtar("-C", tmp_path / "bsd", "-xpf", "-", "--same-owner", "--numeric-owner", input=data)
    tar("-C", tmp_path / "gnu", "-xp", "--same-owner", *GNU_AS_OTHERS, input=data)
    unpack(data, tmp_path / "ours")
    ours = below(tmp_path / "ours")
    assert len(ours) > 15
    assert ours == below(tmp_path / "bsd") == below(tmp_path / "gnu")
