"""The OCI runtime door: scheduler, I/O priority, CPUs, memory policy and personality, as the kernel sees them."""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path

import pytest

from oci_bundle import Door

SCHED_BATCH, SCHED_DEADLINE = 3, 6
IOPRIO_GET = {"x86_64": 252, "aarch64": 31}
CPUS = sorted(os.sched_getaffinity(0))
needs_two_cpus = pytest.mark.skipif(len(CPUS) < 2, reason="needs two processors")


def io_priority(pid: int) -> int:
    return ctypes.CDLL(None).syscall(IOPRIO_GET[os.uname().machine], 1, pid)


def exec_process(door: Door, name: str, **more: object) -> str:
    """What ``sh -c`` says of itself in an exec by a process file."""
    script = "grep Cpus_allowed_list /proc/self/status; uname -m; grep -c balancing /proc/self/numa_maps"
    process = {"args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], **more}
    (door.bundle / "process.json").write_text(json.dumps(process))
    return str(door("exec", "--process", str(door.bundle / "process.json"), name).stdout)


def test_scheduler_and_io_priority_are_the_first_processs_and_an_execs(door: Door) -> None:
    door.config["process"]["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    door.config["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    first = door.start("t-share")
    door.ok("exec", "--detach", "--pid-file", "second", "t-share", "sleep", "60")
    for pid in (first, int((door.bundle / "second").read_text())):
        assert (os.sched_getscheduler(pid), os.getpriority(os.PRIO_PROCESS, pid)) == (SCHED_BATCH, 7)
        assert io_priority(pid) == 2 << 13 | 6


def test_a_deadline_is_the_kernels_to_keep(door: Door) -> None:
    door.config["process"]["scheduler"] = {"policy": "SCHED_DEADLINE", "runtime": 10**6, "deadline": 10**8}
    pid = door.start("t-deadline")
    assert os.sched_getscheduler(pid) == SCHED_DEADLINE


def test_a_policy_that_the_kernel_refuses_leaves_nothing(door: Door) -> None:
    door.config["linux"]["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "1023"}
    door.write()
    assert "cannot set the memory policy" in door.fails("create", "t-nodes")
    assert not door.left()
    assert not door.groups()


@needs_two_cpus
def test_an_execs_cpus_are_its_own_and_never_the_first_processs(door: Door) -> None:
    last = CPUS[-1]
    door.config["process"]["execCPUAffinity"] = {"initial": str(CPUS[0]), "final": str(last)}
    pid = door.start("t-cpus")
    assert os.sched_getaffinity(pid) == set(CPUS)
    assert door.ok("exec", "t-cpus", "grep", "Cpus_allowed_list", "/proc/self/status").split()[1] == str(last)
    assert exec_process(door, "t-cpus", execCPUAffinity={"initial": str(last)}).split()[1] == str(last)
    assert exec_process(door, "t-cpus").split()[1] == Path("/proc/self/status").read_text().split(
        "Cpus_allowed_list:"
    )[1].split()[0]  # fmt: skip


def test_personality_and_memory_policy_go_for_every_process_of_the_container(door: Door) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("uname of LINUX32 is known for x86_64 alone")
    door.config["linux"]["personality"] = {"domain": "LINUX32"}
    door.config["linux"]["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]}
    pid = door.start("t-machine")
    assert Path(f"/proc/{pid}/personality").read_text().strip() == "00000008"
    assert "bind=balancing:0" in Path(f"/proc/{pid}/numa_maps").read_text()
    said = exec_process(door, "t-machine").split()
    assert said[2] == "i686"
    assert int(said[3]) > 0
