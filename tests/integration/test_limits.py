"""Limits bite, and what they did is said. The workloads are bounded, should a limit ever fail to bite."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness import Cloison, until

pytestmark = pytest.mark.guest


def cgroup_file(pid: int, controller: str, v1: str, v2: str) -> str:
    """The text of a limit in the container's own cgroup, wherever its controller is mounted."""
    mounts = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split()[:3]
        if kind == "cgroup":
            mounts.update({option: left.split()[4] for option in options.split(",")})
        elif kind == "cgroup2":
            mounts[""] = left.split()[4]
    paths = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    for names, path in paths.items():
        if controller in names.split(","):
            return Path(f"{mounts[controller]}{path}/{v1}").read_text().strip()
    return Path(f"{mounts['']}{paths['']}/{v2}").read_text().strip()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_command_over_its_memory_limit_is_killed_and_reported(cloison: Cloison, busybox_image: str) -> None:
    words = ["dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"]
    result = cloison("run", "--name", "greedy", "-m", "64m", "--network", "none", busybox_image, *words)
    assert result.returncode == 137
    state = cloison.inspect("greedy")["State"]
    assert state["OOMKilled"] is True
    assert state["ExitCode"] == 137
    cloison.ok("rm", "greedy")


def test_the_same_command_within_its_limit_succeeds(cloison: Cloison, busybox_image: str) -> None:
    """The control: it is the limit that kills, not the command."""
    words = ["dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"]
    result = cloison("run", "--name", "modest", "-m", "256m", "--network", "none", busybox_image, *words)
    assert result.returncode == 0, result.stderr
    assert cloison.inspect("modest")["State"]["OOMKilled"] is False
    cloison.ok("rm", "modest")


def test_half_a_cpu_is_half_a_cpu(cloison: Cloison, busybox_image: str) -> None:
    loop = ["sh", "-c", "while :; do :; done"]
    cloison.ok("run", "-d", "--name", "spin", "--cpus", "0.5", "--network", "none", busybox_image, *loop)
    try:
        pid = cloison.inspect("spin")["State"]["Pid"]
        until(lambda: cpu_seconds(pid) > 0)
        before, started = cpu_seconds(pid), time.monotonic()
        time.sleep(2)
        share = (cpu_seconds(pid) - before) / (time.monotonic() - started)
        assert 0 < share < 0.65  # the machine may have less to give, never more
    finally:
        cloison.ok("rm", "-f", "spin")


def test_a_fork_bomb_stops_at_the_pids_limit(cloison: Cloison, busybox_image: str) -> None:
    script = "i=0; while [ $i -lt 60 ]; do sleep 20 & i=$((i+1)); done; echo all sixty"
    result = cloison("run", "--rm", "--pids-limit", "20", "--network", "none", busybox_image, "sh", "-c", script)
    assert result.returncode != 0
    assert "all sixty" not in result.stdout
    assert "fork" in result.stderr


def test_every_container_has_a_pids_limit(cloison: Cloison, busybox_image: str) -> None:
    cloison.ok("run", "-d", "--name", "plain", "--network", "none", busybox_image, "sleep", "300")
    try:
        pid = cloison.inspect("plain")["State"]["Pid"]
        assert cgroup_file(pid, "pids", "pids.max", "pids.max") == "4096"
    finally:
        cloison.ok("rm", "-f", "plain")


@pytest.mark.parametrize(
    ("flags", "controller", "v1", "v2", "expected"),
    [
        (["-m", "64m"], "memory", "memory.limit_in_bytes", "memory.max", {str(64 << 20)}),
        (["--cpus", "1.5"], "cpu", "cpu.cfs_quota_us", "cpu.max", {"150000", "150000 100000"}),
        (["--cpu-shares", "512"], "cpu", "cpu.shares", "cpu.weight", {"512", "20", "59"}),
        (["--cpuset-cpus", "0"], "cpuset", "cpuset.cpus", "cpuset.cpus", {"0"}),
        (["--pids-limit", "17"], "pids", "pids.max", "pids.max", {"17"}),
        (["--memory-reservation", "32m"], "memory", "memory.soft_limit_in_bytes", "memory.low", {str(32 << 20)}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_limit_stands_in_the_containers_cgroup(
    cloison: Cloison, busybox_image: str, flags: list[str], controller: str, v1: str, v2: str, expected: set[str]
) -> None:
    container = cloison.ok("run", "-d", *flags, "--network", "none", busybox_image, "sleep", "300")
    try:
        pid = cloison.inspect(container)["State"]["Pid"]
        assert cgroup_file(pid, controller, v1, v2) in expected
    finally:
        cloison.ok("rm", "-f", container)


def test_ulimits_and_shm_size_are_as_asked(cloison: Cloison, busybox_image: str) -> None:
    flags = ["--ulimit", "nofile=100:200", "--shm-size", "1m"]
    script = "ulimit -Sn; ulimit -Hn; df -k /dev/shm | awk 'END {print $2}'"
    assert cloison.ok("run", "--rm", *flags, "--network", "none", busybox_image, "sh", "-c", script) == "100\n200\n1024"


def test_a_device_is_reachable_only_when_it_was_given(cloison: Cloison, busybox_image: str) -> None:
    """Not even its node can be made without --device, whatever the capabilities."""
    number = os.stat("/dev/loop-control").st_rdev
    make = f"mknod /tmp/own c {os.major(number)} {os.minor(number)} 2>/dev/null && echo made"
    probe = f"{make}; head -c 0 /tmp/own 2>/dev/null && echo open || echo closed"
    run = ["run", "--rm", "--cap-add", "MKNOD", "--network", "none"]
    assert cloison.ok(*run, busybox_image, "sh", "-c", probe) == "closed"
    assert cloison.ok(*run, "--device", "/dev/loop-control", busybox_image, "sh", "-c", probe) == "made\nopen"
    there = "[ -c /dev/loop-control ] && echo there"
    assert cloison.ok(*run, "--device", "/dev/loop-control", busybox_image, "sh", "-c", there) == "there"


@pytest.mark.parametrize("flags", [["-m", "1k"], ["--cpus", "-1"], ["--cpus", "100000"], ["--cpuset-cpus", "9999"],
                                   ["--memory-swap", "1m", "-m", "64m"], ["--cpu-shares", "x"]])  # fmt: skip
def test_a_limit_that_cannot_be_is_an_error_and_leaves_nothing(
    cloison: Cloison, busybox_image: str, flags: list[str]
) -> None:
    result = cloison("run", "--rm", *flags, "--network", "none", busybox_image, "true")
    assert result.returncode == 125
    assert "Traceback" not in result.stderr
