"""Archives that want out: each is refused, or harmless; the canary outside is never touched."""

from __future__ import annotations

import gzip
import itertools
import os
import resource
import stat
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloison.archive.budget import Limits
from cloison.errors import InvalidArgument, Unavailable
from unpack_fixture import (
    CAPABILITY,
    Member,
    archive,
    character,
    describe,
    file,
    folder,
    hardlink,
    is_opaque,
    is_whiteout,
    member,
    symlink,
    unpack,
)

pytestmark = pytest.mark.jailed

REFUSED, HARMLESS = "refused", "harmless"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Path]:
    """``world/root`` is unpacked into; everything beside it must be the same afterwards."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("alive")
    (tmp_path / "root-sibling").mkdir()
    (tmp_path / "root-sibling" / "canary").write_text("alive")
    (tmp_path / "root").mkdir()
    before = describe_outside(tmp_path)
    yield tmp_path
    assert describe_outside(tmp_path) == before


def describe_outside(world: Path) -> dict[str, tuple[object, ...]]:
    names = (path for path in sorted(world.iterdir()) if path.name != "root")
    return {f"{path.name}/{key}": value for path in names for key, value in describe(path).items()}


def outcome(world: Path, *members: Member, format: int = tarfile.PAX_FORMAT) -> str:
    try:
        unpack(archive(*members, format=format), world / "root")
    except InvalidArgument:
        return REFUSED
    return HARMLESS


# "OUT" is the absolute path of the directory with the canary
CORPUS: dict[str, tuple[str, list[Member]]] = {
    "dot-dot": (REFUSED, [file("../outside/canary")]),
    "dot-dot inside": (REFUSED, [file("a/../../outside/canary")]),
    "dot-dot that stays": (REFUSED, [file("a/../b")]),
    "dot-dot alone": (REFUSED, [folder("..")]),
    "dot-dot at the end": (REFUSED, [folder("a/..")]),
    "absolute": (HARMLESS, [file("OUT/canary")]),
    "many slashes": (HARMLESS, [file("//OUT//canary")]),
    "dots and slashes": (HARMLESS, [file("./a/./b//c")]),
    "link then file": (HARMLESS, [symlink("l", "OUT"), file("l/canary")]),
    "relative link then file": (HARMLESS, [symlink("l", "../outside"), file("l/canary")]),
    "sibling with the same beginning": (HARMLESS, [symlink("l", "../root-sibling"), file("l/canary")]),
    "link to the parent": (HARMLESS, [symlink("l", ".."), file("l/outside/canary")]),
    "link chain": (HARMLESS, [symlink("a", "b"), symlink("b", "c"), symlink("c", "OUT"), file("a/canary")]),
    "link through a link": (HARMLESS, [symlink("a", "../.."), symlink("b", "a/outside"), file("b/canary")]),
    "link loop": (REFUSED, [symlink("a", "b"), symlink("b", "a"), file("a/x")]),
    "link to itself": (REFUSED, [symlink("a", "a"), file("a/x")]),
    "link to /proc": (HARMLESS, [symlink("p", "/proc/self/cwd"), file("p/canary")]),
    "file over a link": (HARMLESS, [symlink("l", "OUT/canary"), file("l")]),
    "file over a link, hard": (HARMLESS, [symlink("l", "OUT/canary"), hardlink("h", "l"), file("h")]),
    "directory over a link": (HARMLESS, [symlink("l", "OUT"), folder("l", mode=0o777), file("l/canary")]),
    "directory with a slash over a link": (HARMLESS, [symlink("l", "OUT"), folder("l/", mode=0o777)]),
    "device over a link": (HARMLESS, [symlink("l", "OUT/canary"), character("l", 1, 3)]),
    "directory replaced by a link": (HARMLESS, [folder("d"), file("d/a"), symlink("d", "OUT"), file("d/canary")]),
    "directory times through a link": (HARMLESS, [folder("d", mtime=5), symlink("d", "OUT")]),
    "parent's times through a link": (HARMLESS, [folder("d"), folder("d/outside", mtime=5), symlink("d", "..")]),
    "hard link outside": (REFUSED, [hardlink("h", "../outside/canary")]),
    "hard link absolute": (REFUSED, [hardlink("h", "OUT/canary")]),
    "hard link through a link": (REFUSED, [symlink("l", "OUT"), hardlink("h", "l/canary")]),
    "hard link to a link, then through it": (HARMLESS, [symlink("l", "OUT"), hardlink("h", "l"), file("h/canary")]),
    "hard link to itself": (REFUSED, [file("h"), hardlink("h", "h")]),
    "hard link to nothing": (REFUSED, [hardlink("h", "nothing")]),
    "hard link before its target": (REFUSED, [hardlink("h", "f"), file("f")]),
    "hard link to a directory": (REFUSED, [folder("d"), hardlink("h", "d")]),
    "hard link to the root": (REFUSED, [hardlink("h", ".")]),
    "hard link without a target": (REFUSED, [hardlink("h", "")]),
    "symbolic link without a target": (REFUSED, [symlink("l", "")]),
    "the root as a file": (REFUSED, [file(".")]),
    "the root as a link": (REFUSED, [symlink("./", "OUT")]),
    "device as parent": (REFUSED, [character("d", 1, 3), file("d/x")]),
    "file as parent": (REFUSED, [file("f"), file("f/x")]),
    "fifo as parent": (REFUSED, [member("p", tarfile.FIFOTYPE), file("p/x")]),
    "fifo replaced": (HARMLESS, [member("p", tarfile.FIFOTYPE), file("p")]),
    "whiteout device smuggled": (REFUSED, [character("w", 0, 0)]),
    "whiteout through a link": (HARMLESS, [symlink("l", "OUT"), file("l/.wh.canary", b"")]),
    "opaque through a link": (HARMLESS, [symlink("l", "OUT"), file("l/.wh..wh..opq", b"")]),
    "whiteout of dot": (REFUSED, [file(".wh..", b"")]),
    "whiteout of dot-dot": (REFUSED, [file("d/.wh...", b"")]),
    "whiteout of nothing": (REFUSED, [file(".wh.", b"")]),
    "whiteout of a whiteout": (REFUSED, [file(".wh..wh.x", b"")]),
    "aufs metadata": (REFUSED, [file(".wh..wh.aufs", b"")]),
    "whiteout as parent": (REFUSED, [file(".wh.d/x")]),
    "whiteout as directory": (REFUSED, [folder(".wh.d")]),
    "whiteout as link": (REFUSED, [symlink(".wh.d", "OUT")]),
    "whiteout with content": (REFUSED, [file(".wh.d", b"x")]),
    "hard link to a whiteout": (REFUSED, [file(".wh.a", b""), hardlink("b", "a")]),
    "hard link to a whiteout's name": (REFUSED, [file(".wh.a", b""), hardlink("b", ".wh.a")]),
    "name of 256 bytes": (REFUSED, [file("n" * 256)]),
    "path of 5000 bytes": (REFUSED, [file("/".join(["d" * 99] * 50))]),
    "300 directories deep": (REFUSED, [file("/".join(["d"] * 300))]),
    "link target of 5000 bytes": (REFUSED, [symlink("l", "x" * 5000)]),
}


@pytest.mark.parametrize("case", CORPUS)
@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_a_hostile_archive_ends_as_expected_and_touches_nothing_outside(world: Path, case: str, format: int) -> None:
    expected, members = CORPUS[case]
    outside = str(world / "outside")
    for info, _ in members:
        info.name = info.name.replace("OUT", outside)
        info.linkname = info.linkname.replace("OUT", outside)
    try:
        assert outcome(world, *members, format=format) == expected
    finally:
        for info, _ in members:
            info.name = info.name.replace(outside, "OUT")
            info.linkname = info.linkname.replace(outside, "OUT")


_NAMES = ["a", "b", "a/b", "a/canary", "b/a", "b/canary", "a/.wh.canary", ".wh.a", "b/.wh..wh..opq", "."]
_TARGETS = [
    "a",
    "b",
    "a/b",
    "..",
    "../outside",
    "/",
    "a/canary",
    "../outside/canary",
    "OUT",
    "OUT/canary",
    "/proc/self/root",
]
_MAKERS: list[Callable[[str, str], Member]] = [
    lambda name, _: file(name, b"" if ".wh." in name else b"overwritten"),
    lambda name, _: folder(name, mode=0o777, mtime=1),
    symlink, hardlink,
    lambda name, _: character(name, 1, 3),
]  # fmt: skip


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(_MAKERS), st.sampled_from(_NAMES), st.sampled_from(_TARGETS)), max_size=7))
def test_no_order_of_links_files_and_whiteouts_reaches_the_outside(
    world: Path, steps: list[tuple[Callable[[str, str], Member], str, str]]
) -> None:
    number = next(_COUNTER)
    root = world / "root" / str(number)
    members = [make(name, target.replace("OUT", str(world / "outside"))) for make, name, target in steps]
    try:
        unpack(archive(*members), root)
    except InvalidArgument:
        pass
    assert (world / "outside" / "canary").read_text() == "alive"
    assert sorted(os.listdir(world / "outside")) == ["canary"]


_COUNTER = itertools.count()


def test_a_file_written_through_an_absolute_link_lands_inside(world: Path) -> None:
    outside = str(world / "outside")
    unpack(archive(symlink("l", outside), file("l/canary", b"inside")), world / "root")
    assert (world / "root" / outside.lstrip("/") / "canary").read_text() == "inside"


def test_what_lies_in_an_unnamed_directory_of_a_lower_layers_link_still_unpacks(world: Path) -> None:
    # absolute links to directories and absolute names of link targets are common in real images
    members = (folder("usr/lib"), symlink("lib", "/usr/lib"), file("lib/x", b"x"), hardlink("y", "/usr/lib/x"))
    unpack(archive(*members), world / "root")
    assert (world / "root/usr/lib/x").read_text() == "x"
    assert (world / "root/y").samefile(world / "root/usr/lib/x")


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_devices_are_data_with_exact_modes(world: Path, format: int) -> None:
    members = (character("null", 1, 3), member("disk", tarfile.BLKTYPE, devmajor=8, devminor=1, mode=0o660))
    old = os.umask(0o077)
    try:
        unpack(archive(*members, member("pipe", tarfile.FIFOTYPE, mode=0o622), format=format), world / "root")
    finally:
        os.umask(old)
    null, disk, pipe = ((world / "root" / name).lstat() for name in ("null", "disk", "pipe"))
    assert (stat.S_ISCHR(null.st_mode), null.st_rdev, stat.S_IMODE(null.st_mode)) == (True, os.makedev(1, 3), 0o644)
    assert (stat.S_ISBLK(disk.st_mode), disk.st_rdev, stat.S_IMODE(disk.st_mode)) == (True, os.makedev(8, 1), 0o660)
    assert (stat.S_ISFIFO(pipe.st_mode), stat.S_IMODE(pipe.st_mode)) == (True, 0o622)


def test_only_harmless_xattrs_are_kept_and_the_others_are_named(world: Path) -> None:
    xattrs = {
        "user.kept": "1", "user.overlay.opaque": "y", "trusted.overlay.redirect": "/etc", "trusted.overlay.opaque": "y",
        "trusted.x": "1", "security.selinux": "label", "security.ima": "x", "system.posix_acl_access": "x",
    }  # fmt: skip
    headers = {f"SCHILY.xattr.{key}": value for key, value in xattrs.items()}
    applied = unpack(archive(file("f", pax_headers=headers), folder("d", pax_headers=headers)), world / "root")
    assert os.listxattr(world / "root/f") == os.listxattr(world / "root/d") == ["user.kept"]
    assert set(applied.dropped_xattrs) == set(xattrs) - {"user.kept"}


def test_file_capabilities_and_setuid_bits_survive_the_change_of_owner(world: Path) -> None:
    headers = {"SCHILY.xattr.security.capability": CAPABILITY.decode("latin-1")}
    members = (file("ping", uid=1000, gid=1000, pax_headers=headers), file("su", uid=1000, gid=1000, mode=0o6755))
    unpack(archive(*members), world / "root")
    assert os.getxattr(world / "root/ping", "security.capability") == CAPABILITY
    info = (world / "root/su").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o6755, 1000, 1000)


@pytest.mark.parametrize("order", [1, -1])
def test_a_whiteout_hides_the_lower_layers_only_in_any_order(world: Path, order: int) -> None:
    pairs = ([file(".wh.f", b""), file("f", b"new")][::order], [file(".wh.d", b""), file("d/x")][::order])
    unpack(
        archive(*pairs[0], *pairs[1], file("o/.wh..wh..opq", b""), file("o/x"), file(".wh.gone", b"")), world / "root"
    )
    root = world / "root"
    assert (root / "f").read_text() == "new"
    assert (root / "d/x").exists() and is_opaque(root / "d")
    assert (root / "o/x").exists() and is_opaque(root / "o")
    assert is_whiteout(root / "gone")


def test_of_a_directory_that_comes_twice_the_later_time_counts(world: Path) -> None:
    members = [folder("a", mtime=5), folder("a/b", mtime=-6), file("a/b/x"), folder("c", mtime=1 << 33),
               folder("a", mtime=7)]  # fmt: skip
    unpack(archive(*members), world / "root")
    times = {name: (world / "root" / name).stat().st_mtime for name in ("a", "a/b", "c")}
    assert times == {"a": 7, "a/b": -6, "c": 1 << 33}


# --- bombs


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Zeros:
    """A gzip stream of zeros without end, made as it is read."""

    def __init__(self) -> None:
        self.member = gzip.compress(bytes(16 << 20), compresslevel=9)
        self.given = 0

    def read(self, size: int, /) -> bytes:
        self.given += len(self.member)
        return self.member


def test_an_endless_gzip_stream_is_stopped_by_the_ratio(world: Path) -> None:
    from cloison.archive.decompress import decompress

    stream = decompress(Zeros(), limits=Limits(ratio=900))
    began, read = time.process_time(), 0
    with pytest.raises(InvalidArgument, match="to 1"):
        while chunk := stream.read(1 << 18):
            read += len(chunk)
    assert read < 110 << 20
    assert time.process_time() - began < 5


def test_a_pax_header_of_a_gigabyte_is_refused_before_it_is_read(world: Path) -> None:
    header = bytearray(archive(member("x", b"x"))[:512])
    header[124:136] = b"%011o\0" % (1 << 30)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    before = peak_kib()
    with pytest.raises(InvalidArgument, match="extended header"):
        unpack(bytes(header) + bytes(1 << 20), world / "root")
    assert peak_kib() - before < 50 << 10


def test_a_sparse_file_of_an_exabyte_is_refused(world: Path) -> None:
    headers = {"GNU.sparse.map": "0,4", "GNU.sparse.size": str(1 << 60), "GNU.sparse.numblocks": "1"}
    with pytest.raises(InvalidArgument, match="out of range"):
        unpack(archive(file("s", pax_headers=headers)), world / "root")
    assert os.listdir(world / "root") == []


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    import subprocess

    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "cloison-test", mount], check=True)
    try:
        with pytest.raises(Unavailable) as caught:
            unpack(archive(*(file(f"f{i}", os.urandom(1 << 19)) for i in range(20))), mount / "root")
        assert str(caught.value) == "cannot unpack the layer: no space left on device"
    finally:
        subprocess.run(["umount", mount], check=True)
