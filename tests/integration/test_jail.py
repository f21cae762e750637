"""The place where hostile archives are unpacked: what gets out of its directory is seen, and harms nothing."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jail
from harness import PROJECT

pytestmark = pytest.mark.jailed


@pytest.fixture
def as_before() -> Iterator[dict[str, os.stat_result]]:
    """These directories and canaries are afterwards what they were."""
    times = {path: os.stat(path) for path in ("/", "/etc", "/var", "/canary", "/etc/canary")}
    yield times
    for path, info in times.items():
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def test_nothing_of_this_machine_can_be_named(tmp_path: Path) -> None:
    assert os.getpid() == 1
    assert not {"dev", "run", "home", "sys"} & set(os.listdir("/"))
    assert os.listdir("/etc") == ["canary"]
    assert Path("/proc/1/root/canary").read_text() == "alive"  # where the way through /proc ends, too
    assert [name for name in os.listdir("/proc") if name.isdigit()] == ["1"]


@pytest.mark.parametrize("place", [PROJECT, Path("/usr"), Path(sys.prefix), Path("/proc/sys/kernel/hostname")])
def test_what_is_there_of_it_cannot_be_written(place: Path) -> None:
    with pytest.raises(OSError) as caught:
        (place / "canary" if place.is_dir() else place).write_text("x")
    assert caught.value.errno == errno.EROFS


def test_devices_and_setuid_bits_mean_nothing(tmp_path: Path, as_before: object) -> None:
    for directory in (tmp_path, Path("/var")):
        os.mknod(directory / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        with pytest.raises(PermissionError):
            (directory / "null").read_bytes()
        (directory / "null").unlink()
        assert os.statvfs(directory).f_flag & (os.ST_NOSUID | os.ST_NODEV) == os.ST_NOSUID | os.ST_NODEV


@pytest.mark.parametrize("path", ["/canary", "/etc/canary"])
def test_every_change_outside_is_seen(path: str, as_before: dict[str, os.stat_result]) -> None:
    before = jail._outside()
    Path(path).write_text("dead!")
    assert jail._outside() != before
    Path(path).write_text("alive")
    for change, undo in ((lambda: os.link(path, path + "2"), lambda: os.unlink(path + "2")),
                         (lambda: os.mkdir("/etc/new"), lambda: os.rmdir("/etc/new")),
                         (lambda: os.chmod(path, 0o4755), lambda: os.chmod(path, 0o644))):  # fmt: skip
        change()
        assert jail._outside() != before
        undo()
    for name, info in as_before.items():
        os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert jail._outside() == before
