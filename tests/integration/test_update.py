"""Other limits for a container that exists: in the kernel at once, in the record for good, or in neither."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cloison.linux import cgroups
from cloison.store.containers import ContainerStore
from harness import Cloison, Roots


@pytest.fixture(autouse=True)
def _nothing_stays(cloison: Cloison) -> Iterator[None]:
    yield
    cloison.remove_all()


def limits(cloison: Cloison, name: str) -> dict[str, Any]:
    document: dict[str, Any] = cloison.inspect(name)["HostConfig"]
    return document


def inside(cloison: Cloison, name: str, v1: str, v2: str) -> str:
    """What a file of the container's own view of its control group says."""
    layout = cgroups.read_layout()
    controller = v1.partition(".")[0]
    path = f"/sys/fs/cgroup/{controller}/{v1}" if layout.version_of(controller) == 1 else f"/sys/fs/cgroup/{v2}"
    return cloison.ok("exec", name, "cat", path).strip()


def test_limits_of_a_running_container_change_at_once_and_for_good(cloison: Cloison, busybox_image: str) -> None:
    cloison.ok("run", "-d", "--name", "one", "-m", "64m", busybox_image, "sleep", "1000")
    assert cloison.ok("update", "-m", "32m", "--pids-limit", "50", "one") == "one"
    assert inside(cloison, "one", "memory.limit_in_bytes", "memory.max") == str(32 << 20)
    assert inside(cloison, "one", "pids.max", "pids.max") == "50"
    cloison.ok("restart", "-t", "0", "one")
    assert inside(cloison, "one", "memory.limit_in_bytes", "memory.max") == str(32 << 20)
    assert (limits(cloison, "one")["Memory"], limits(cloison, "one")["PidsLimit"]) == (32 << 20, 50)


def test_a_limit_that_was_never_asked_for_before_bites(cloison: Cloison, busybox_image: str) -> None:
    cloison.ok("run", "-d", "--name", "busy", busybox_image, "sh", "-c", "while :; do :; done")
    cloison.ok("update", "--cpus", "0.2", "--cpuset-cpus", "0", "busy")
    shown = cloison.ok("stats", "--no-stream", "--format", "{{.CPUPerc}}", "busy")
    assert float(shown.strip().removesuffix("%")) < 40
    assert limits(cloison, "busy")["NanoCpus"] == 200_000_000
    assert "Cpus_allowed_list:\t0\n" in cloison.ok("exec", "busy", "cat", "/proc/1/status")


def test_a_container_that_does_not_run_has_them_at_its_next_start(cloison: Cloison, busybox_image: str) -> None:
    cloison.ok("create", "--name", "still", busybox_image, "sleep", "1000")
    cloison.ok("update", "-m", "48m", "--memory-swap", "96m", "still")
    cloison.ok("start", "still")
    assert inside(cloison, "still", "memory.limit_in_bytes", "memory.max") == str(48 << 20)
    assert limits(cloison, "still")["MemorySwap"] == 96 << 20


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["-m", "100m"], "smaller than already set memoryswap limit"),
        (["--memory-swap", "16m"], "minimum memoryswap limit should be larger"),
        (["--cpuset-cpus", "4095"], "cpuset.cpus"),
        (["-m", "4k"], "memory"),
        (["--pids-limit", "0"], "--pids-limit must be a positive number"),
    ],
)
def test_what_cannot_be_is_in_neither_kernel_nor_record(
    cloison: Cloison, busybox_image: str, words: list[str], why: str
) -> None:
    cloison.ok("run", "-d", "--name", "one", "-m", "32m", "--memory-swap", "64m", busybox_image, "sleep", "1000")
    before = limits(cloison, "one")
    refused = cloison("update", *words, "one")
    assert (refused.returncode, why in refused.stderr) == (1, True), refused.stderr
    assert limits(cloison, "one") == before
    assert inside(cloison, "one", "memory.limit_in_bytes", "memory.max") == str(32 << 20)


def test_two_updates_at_the_same_time_both_count(cloison: Cloison, roots: Roots, busybox_image: str) -> None:
    container = cloison.ok("create", "--name", "one", busybox_image, "true")
    with ContainerStore(roots.settings).enter(container):
        both = [cloison.spawn("update", *words, "one") for words in (("--cpu-shares", "512"), ("--pids-limit", "77"))]
        time.sleep(1)  # both have seen the record and wait for the lock, as we have it
    assert [process.wait(30) for process in both] == [0, 0]
    assert (limits(cloison, "one")["CpuShares"], limits(cloison, "one")["PidsLimit"]) == (512, 77)


def test_two_renames_at_the_same_time_leave_one_name(cloison: Cloison, roots: Roots, busybox_image: str) -> None:
    container = cloison.ok("create", "--name", "one", busybox_image, "true")
    with ContainerStore(roots.settings).enter(container):
        both = [cloison.spawn("rename", container, new) for new in ("two", "three")]
        time.sleep(1)
    assert [process.wait(30) for process in both] == [0, 0]
    assert len(os.listdir(f"{roots.data_root}/names")) == 1
    assert cloison("rename", container, cloison.inspect(container)["Name"][1:]).returncode == 1


def test_several_at_once_and_none_at_all(cloison: Cloison, busybox_image: str) -> None:
    for name in ("one", "two"):
        cloison.ok("create", "--name", name, busybox_image, "true")
    done = cloison("update", "--cpu-shares", "512", "one", "nobody", "two")
    assert (done.returncode, done.stdout) == (1, "one\ntwo\n")
    assert "No such container: nobody" in done.stderr
    assert json.loads(cloison.ok("inspect", "-f", "{{.HostConfig.CpuShares}}", "two")) == 512
    nothing = cloison("update", "one")
    assert (nothing.returncode, "one or more flags" in nothing.stderr) == (125, True)
