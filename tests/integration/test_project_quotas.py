"""What later quotas of containers stand on: a project's limit is set by the usual tools, and the kernel holds to it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.guest

PROJECT, LIMIT = 4711, 4 << 20
# How a limit is set, and how much is used, by the tools of each file system
TOOLS = {
    "ext4": (
        f"setquota -P {PROJECT} 0 {LIMIT >> 10} 0 0 {{top}}",
        "repquota -P --raw-grace --no-names --output=csv {top}",
    ),
    "xfs": (
        f"xfs_quota -x -c 'limit -p bhard={LIMIT} {PROJECT}' {{top}}",
        "xfs_quota -x -c 'report -p -N -n' {top}",
    ),
}


def enforced(kind: str) -> bool:
    rows = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return any(row[1:3] == [f"/srv/{kind}", kind] and "prjquota" in row[3].split(",") for row in rows)


@pytest.fixture(params=TOOLS)
def top(request: pytest.FixtureRequest) -> str:
    """The mount point of a file system with project quotas."""
    if not enforced(request.param):
        pytest.skip(f"needs {request.param} with project quotas on /srv/{request.param}: make test-guest")
    return f"/srv/{request.param}"


@pytest.fixture
def directory(top: str) -> Iterator[Path]:
    """A directory of the project, below which everything belongs to it."""
    path = Path(top, "limited")
    path.mkdir()
    subprocess.run(["chattr", "+P", "-p", str(PROJECT), path], check=True)
    subprocess.run(TOOLS[path.parent.name][0].format(top=top), shell=True, check=True)
    yield path
    subprocess.run(["rm", "-r", path], check=True)


def write(path: Path, size: int) -> int:
    """How many bytes of so many the file system takes from root as it is in a container."""
    # ext4 lets everything pass for CAP_SYS_RESOURCE (ignore_hardlimit in the kernel's fs/quota/dquot.c)
    argv = ["setpriv", "--bounding-set", "-sys_resource", "dd", "if=/dev/zero", f"of={path}", "bs=64k", "conv=fsync"]
    argv += [f"count={size >> 16}"]
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:  # XFS says of a project that no space is left
        assert "Disk quota exceeded" in done.stderr or "No space left on device" in done.stderr, done.stderr
    return path.stat().st_size


def test_a_project_gets_what_its_quota_allows_and_no_more(directory: Path, top: str) -> None:
    (directory / "inner").mkdir()
    taken = write(directory / "first", LIMIT // 2) + write(directory / "inner" / "second", LIMIT)
    assert LIMIT - (1 << 19) < taken <= LIMIT
    assert write(directory.parent / "outside", 2 * LIMIT) == 2 * LIMIT
    os.unlink(directory.parent / "outside")


def test_what_is_deleted_can_be_used_again(directory: Path, top: str) -> None:
    assert write(directory / "first", 2 * LIMIT) <= LIMIT
    os.unlink(directory / "first")
    assert write(directory / "second", LIMIT // 2) == LIMIT // 2


def test_the_use_of_a_project_is_told(directory: Path, top: str) -> None:
    write(directory / "file", LIMIT // 2)
    subprocess.run(["sync", "-f", top], check=True)
    command = TOOLS[Path(top).name][1].format(top=top)
    said = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout
    row = next(line for line in said.splitlines() if line.startswith(f"#{PROJECT}")).replace(",", " ").split()
    numbers = [int(word) for word in row if word.isdigit()]
    assert LIMIT // 2 <= numbers[0] << 10 <= LIMIT // 2 + (1 << 16)
