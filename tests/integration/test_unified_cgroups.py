"""Version 2 alone: what only a kernel without a version 1 hierarchy can show of containers' limits."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.linux.cgroups import read_layout
from harness import Cloison, until
from oci_bundle import Door, subreaping

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(bool(read_layout().legacy), reason="needs a machine with cgroup v2 alone: make test-guest"),
]

UNIFIED = Path("/sys/fs/cgroup")
NUMBER = os.stat("/var/tmp").st_dev
DISK = f"/dev/block/{os.major(NUMBER)}:{os.minor(NUMBER)}"


@pytest.fixture(autouse=True)
def subreaper() -> Iterator[None]:
    with subreaping():
        yield


def group_of(pid: int) -> Path:
    return UNIFIED / Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::/")


def test_every_limit_of_a_bundle_stands_in_its_group(door: Door) -> None:
    door.config["linux"]["resources"] = {
        "memory": {"limit": 64 << 20, "swap": 64 << 20, "reservation": 16 << 20},
        "cpu": {"shares": 2048, "quota": 20_000, "period": 50_000, "cpus": "1", "mems": "0", "idle": 0},
        "pids": {"limit": 40},
        "blockIO": {
            "throttleWriteBpsDevice": [{"major": os.major(NUMBER), "minor": os.minor(NUMBER), "rate": 1 << 20}]
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}],
        "unified": {"memory.high": str(48 << 20), "memory.oom.group": "1"},
    }
    group = group_of(door.start("t-unified"))
    expected = {
        "memory.max": str(64 << 20), "memory.swap.max": "0", "memory.low": str(16 << 20),
        "memory.high": str(48 << 20), "memory.oom.group": "1", "cpu.weight": "174", "cpu.max": "20000 50000",
        "cpuset.cpus": "1", "cpuset.mems": "0", "pids.max": "40", "hugetlb.2MB.max": str(4 << 20),
        "io.max": f"{os.major(NUMBER)}:{os.minor(NUMBER)} rbps=max wbps={1 << 20} riops=max wiops=max",
    }  # fmt: skip
    assert {name: (group / name).read_text().strip() for name in expected} == expected


def test_an_update_changes_what_it_names_and_nothing_else(door: Door) -> None:
    door.config["linux"]["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 40}}
    group = group_of(door.start("t-unified"))
    document = {"cpu": {"quota": 30_000, "period": 100_000, "cpus": "0"}, "pids": {"limit": 50}}
    door.ok("update", "--resources", "-", "t-unified", input=json.dumps(document))
    files = ("memory.max", "cpu.max", "cpuset.cpus", "pids.max")
    assert [(group / name).read_text().strip() for name in files] == [str(64 << 20), "30000 100000", "0", "50"]


def test_figures_are_read_from_the_group(door: Door) -> None:
    door.config["linux"]["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 40}}
    door.start("t-unified", "sh", "-c", "while :; do :; done")
    until(lambda: stats(door)["cpu"]["usage"]["total"] > 10_000_000, what="a hundredth of a second of work")
    data = stats(door)
    assert (data["pids"], data["memory"]["usage"]["limit"]) == ({"current": 1, "limit": 40}, 64 << 20)
    assert 0 < data["memory"]["usage"]["usage"] <= data["memory"]["usage"]["limit"]


def stats(door: Door) -> dict[str, dict[str, dict[str, int]]]:
    found: dict[str, dict[str, dict[str, int]]] = json.loads(door.ok("events", "--stats", "t-unified"))["data"]
    return found


def test_a_pause_freezes_the_whole_group_and_kill_reaches_it(door: Door) -> None:
    pid = door.start("t-unified", "sh", "-c", "while :; do :; done")
    group = group_of(pid)
    door.ok("pause", "t-unified")
    assert "frozen 1" in (group / "cgroup.events").read_text()
    before = stats(door)["cpu"]["usage"]["total"]
    time.sleep(0.3)
    assert stats(door)["cpu"]["usage"]["total"] == before
    door.ok("kill", "t-unified", "KILL")
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == 9


def test_the_oom_killer_takes_the_container_as_a_whole(door: Door) -> None:
    """memory.oom.group: one process killed out of two would leave a container that neither works nor ends."""
    door.config["linux"]["resources"] = {"memory": {"limit": 32 << 20, "swap": 32 << 20}}
    pid = door.start("t-unified", "sh", "-c", "dd if=/dev/zero of=/dev/null bs=100M count=1; sleep 100")
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == 9


def test_an_exec_goes_where_the_first_process_is_when_the_group_passes_controllers_on(door: Door) -> None:
    door.config["linux"]["namespaces"].append({"type": "cgroup"})
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "cgroup2", "options": ["rw"]}
    door.config["mounts"] += [{"destination": "/sys", "type": "sysfs", "source": "sysfs"}, mount]
    script = (
        "cd /sys/fs/cgroup && mkdir init && echo 1 > init/cgroup.procs && echo +pids > cgroup.subtree_control"
        " && exec sleep 100"
    )
    pid = door.start("t-unified", "sh", "-c", script)
    until(lambda: (group_of(pid).parent / "cgroup.subtree_control").read_text().strip(), what="a delegated controller")
    assert door.ok("exec", "t-unified", "cat", "/proc/self/cgroup").strip() == "0::/init"


@pytest.mark.skipif(not os.path.exists(DISK), reason="/var/tmp is on no block device")
def test_a_write_rate_slows_the_writer_down(cloison: Cloison, busybox_image: str) -> None:
    shared = Path(cloison.roots.data_root, "shared")
    shared.mkdir()
    script = (
        "read a _ </proc/uptime; dd if=/dev/zero of=/data/file bs=512k count=4 oflag=direct 2>/dev/null || exit 1;"
        " read b _ </proc/uptime; echo $a $b"
    )

    def seconds(*flags: str) -> float:
        run = ["run", "--rm", "--network", "none", *flags, "-v", f"{shared}:/data", busybox_image, "sh", "-c", script]
        begun, ended = map(float, cloison.ok(*run).split())
        return ended - begun

    free = seconds()
    assert seconds("--device-write-bps", f"{DISK}:1mb") > max(1.0, 2 * free)
