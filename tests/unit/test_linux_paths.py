"""Paths inside an untrusted root: each refusal stands beside the same call without the flag, which works."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.errors import InvalidArgument, NotFound
from cloison.linux.paths import make_directories, open_in_root, read_regular

READ = os.O_RDONLY


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "secret").write_text("of the host")
    return directory


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    directory = tmp_path / "root"
    (directory / "etc").mkdir(parents=True)
    (directory / "etc/passwd").write_text("inside\n")
    return directory


@pytest.fixture
def root_fd(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    before = set(os.listdir("/proc/self/fd"))
    yield fd
    assert set(os.listdir("/proc/self/fd")) - before == set(), "a descriptor was left open"
    os.close(fd)


def content(fd: int) -> bytes:
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def failure(root_fd: int, path: bytes, **keys: bool) -> int:
    with pytest.raises(OSError) as caught:
        os.close(open_in_root(root_fd, path, flags=READ, **keys))
    return caught.value.errno or 0


@pytest.mark.parametrize(
    "path", [b"etc/passwd", b"/etc/passwd", b"../../etc/passwd", b"/../etc/./passwd", b"//etc//passwd"]
)
def test_the_root_is_the_root_from_every_direction(root_fd: int, path: bytes) -> None:
    fd = open_in_root(root_fd, path, flags=READ)
    assert not os.get_inheritable(fd)
    assert content(fd) == b"inside\n"


def test_an_absolute_link_stays_inside(root: Path, root_fd: int) -> None:
    (root / "link").symlink_to("/etc/passwd")
    assert (root / "link").read_text() != "inside\n"  # the control: a plain open leaves the root
    assert content(open_in_root(root_fd, b"link", flags=READ)) == b"inside\n"


def test_a_link_that_climbs_stays_inside(root: Path, root_fd: int, outside: Path) -> None:
    (root / "climb").symlink_to("../outside/secret")
    assert (root / "climb").read_text() == "of the host"
    assert failure(root_fd, b"climb") == errno.ENOENT


def test_a_magic_link_is_refused() -> None:
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    inside = os.open("self/cwd", os.O_PATH, dir_fd=proc)  # the control: openat follows it
    os.close(inside)
    assert failure(proc, b"self/cwd") == errno.ELOOP
    os.close(proc)


def test_no_symlinks_refuses_any_link(root: Path, root_fd: int) -> None:
    (root / "dir").symlink_to("etc")
    os.close(open_in_root(root_fd, b"dir/passwd", flags=READ))
    assert failure(root_fd, b"dir/passwd", no_symlinks=True) == errno.ELOOP
    os.close(open_in_root(root_fd, b"etc/passwd", flags=READ, no_symlinks=True))


def test_no_xdev_refuses_another_mount() -> None:
    host = os.open("/", os.O_PATH | os.O_DIRECTORY)
    os.close(open_in_root(host, b"proc/version", flags=READ))
    assert failure(host, b"proc/version", no_xdev=True) == errno.EXDEV
    os.close(host)


def test_a_file_is_made_with_its_mode(root: Path, root_fd: int) -> None:
    os.close(open_in_root(root_fd, b"/etc/new", flags=os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o640))
    assert stat.S_IMODE((root / "etc/new").stat().st_mode) == 0o640
    assert failure(root_fd, b"/etc/missing") == errno.ENOENT


def test_a_nul_in_a_path_does_not_cut_it(root_fd: int) -> None:
    assert failure(root_fd, b"etc/passwd\0.jpg") == errno.EINVAL


def test_bytes_that_are_no_utf8_are_a_name(root: Path, root_fd: int) -> None:
    (root / os.fsdecode(b"\xff\xfe")).write_text("odd")
    assert content(open_in_root(root_fd, b"\xff\xfe", flags=READ)) == b"odd"


def test_directories_are_made_with_an_exact_mode(root: Path, root_fd: int) -> None:
    before = os.umask(0o077)
    try:
        fd = make_directories(root_fd, b"/etc/a/b", mode=0o755)
    finally:
        os.umask(before)
    assert os.fstat(fd).st_ino == (root / "etc/a/b").stat().st_ino
    os.close(fd)
    assert [stat.S_IMODE((root / p).stat().st_mode) for p in ("etc/a", "etc/a/b")] == [0o755, 0o755]


def test_directories_that_exist_keep_their_mode(root: Path, root_fd: int) -> None:
    (root / "etc").chmod(0o700)
    os.close(make_directories(root_fd, b"etc/x", mode=0o755))
    assert stat.S_IMODE((root / "etc").stat().st_mode) == 0o700


def test_directories_behind_a_link_are_made_inside(root: Path, root_fd: int, outside: Path) -> None:
    (root / "abs").symlink_to(outside)
    (root / "up").symlink_to("../outside")
    (root / "rel").symlink_to("etc")
    os.close(make_directories(root_fd, b"rel/made", mode=0o755))
    assert (root / "etc/made").is_dir()
    for name in (b"abs", b"up"):  # both dangle inside
        with pytest.raises(OSError):
            os.close(make_directories(root_fd, name + b"/made", mode=0o755))
    assert os.listdir(outside) == ["secret"]


def test_a_file_in_the_way_is_an_error(root_fd: int) -> None:
    with pytest.raises(NotADirectoryError):
        make_directories(root_fd, b"etc/passwd/x", mode=0o755)
    with pytest.raises(OSError):
        make_directories(root_fd, b"new/../etc", mode=0o755)


def test_a_regular_file_is_read_whole(root: Path, root_fd: int) -> None:
    (root / "big").write_bytes(b"x" * 200_000)
    assert read_regular(root_fd, b"etc/passwd", limit=1 << 20) == b"inside\n"
    assert len(read_regular(root_fd, b"big", limit=200_000)) == 200_000


def test_a_file_above_the_limit_is_refused_without_reading_it(root: Path, root_fd: int) -> None:
    with open(root / "sparse", "wb") as file:
        file.truncate(2 << 30)
    begun = time.process_time()
    with pytest.raises(InvalidArgument, match="larger than 1048576"):
        read_regular(root_fd, b"sparse", limit=1 << 20)
    assert time.process_time() - begun < 1
    (root / "sparse").unlink()


def test_a_pipe_does_not_hang_the_reader(root: Path, root_fd: int) -> None:
    os.mkfifo(root / "pipe")
    begun = time.process_time()
    with pytest.raises(InvalidArgument, match="not a regular file"):
        read_regular(root_fd, b"pipe", limit=100)
    assert time.process_time() - begun < 1


def test_a_directory_a_loop_and_nothing_are_told_apart(root: Path, root_fd: int) -> None:
    (root / "loop").symlink_to("loop")
    with pytest.raises(InvalidArgument, match="not a regular file"):
        read_regular(root_fd, b"etc", limit=100)
    with pytest.raises(InvalidArgument, match="cannot read loop"):
        read_regular(root_fd, b"loop", limit=100)
    for path in (b"nothing", b"etc/passwd/x"):
        with pytest.raises(NotFound):
            read_regular(root_fd, path, limit=100)


def test_a_file_whose_size_lies_is_still_limited() -> None:
    proc = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
    try:
        assert os.stat("status", dir_fd=proc).st_size == 0
        assert read_regular(proc, b"status", limit=1 << 20).startswith(b"Name:")
        with pytest.raises(InvalidArgument, match="larger than 10"):
            read_regular(proc, b"status", limit=10)
    finally:
        os.close(proc)
