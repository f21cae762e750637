"""The OCI runtime killed at any moment: what it leaves is found and taken away by ``delete --force``."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from oci_bundle import Door

STEPS_MS = range(10, 70, 4)


def inhabitants(door: Door) -> list[str]:
    """Processes that have the bundle's root as theirs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"/{door.home.name}/bundle/rootfs" in (process / "mountinfo").read_text():
                found.append(process.name)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("verb", ["create", "run"])
def test_a_killed_runtime_leaves_nothing_that_delete_does_not_find(door: Door, verb: str) -> None:
    door.write("sleep", "1000")
    for delay_ms in STEPS_MS:
        argv = door.argv(verb, "t-crash")
        with subprocess.Popen(argv, cwd=door.bundle, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            time.sleep(delay_ms / 1000)
            process.kill()
        door.ok("delete", "--force", "t-crash")
        assert (door.left(), door.groups()) == ([], []), f"after {delay_ms} ms"
    deadline = time.monotonic() + 30
    while inhabitants(door):
        assert time.monotonic() < deadline, inhabitants(door)
        time.sleep(0.05)


def test_two_creates_of_one_name_make_one_container(door: Door) -> None:
    door.write("sleep", "1000")
    for _ in range(3):
        starts = [
            subprocess.Popen(
                door.argv("create", "t-twice"),
                cwd=door.bundle,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(3)
        ]
        assert sorted(process.wait(30) for process in starts) == [0, 1, 1]
        assert door.state("t-twice")["status"] == "created"
        door.ok("delete", "--force", "t-twice")


def test_two_starts_start_once(door: Door) -> None:
    door.write("sleep", "1000")
    door.ok("create", "t-once")
    starts = [subprocess.Popen(door.argv("start", "t-once"), stderr=subprocess.DEVNULL) for _ in range(3)]
    assert sorted(process.wait(30) for process in starts) == [0, 1, 1]
    door.ok("delete", "--force", "t-once")
