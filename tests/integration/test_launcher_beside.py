"""What the launcher does beside its child: the network namespace that it makes, and the caller it waits for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from launcher_plan import Operation, Run, World, launch, made_world

NAMESPACES = ("new-namespaces", "mnt", "pid", "ipc", "uts")  # all that `launcher_plan` has, but the network's


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with made_world(tmp_path) as world:
        yield world


def network_of(pid: int | str) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def waiting(world: World, *before: Operation, join: Sequence[Operation] = ()) -> Run:
    """Started, and waiting for its caller once more before the command."""
    enter: list[Operation] = [("join-network",)] if ("new-network",) in before else [("await-parent",), *join]
    mounts = [*enter, *world.mounts()]
    late = [("await-start", "client")]
    return launch(world.plan("true", before=before, mounts=mounts, namespaces=NAMESPACES, late=late))


def test_the_command_is_in_a_network_of_its_own_and_the_launcher_in_its_callers(world: World) -> None:
    started = waiting(world, ("new-network",))
    started.until("w")
    assert network_of(started.process.pid) == network_of("self")
    assert network_of(started.pid()) != network_of("self")
    devices = Path(f"/proc/{started.pid()}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]
    assert "127.0.0.1" in Path(f"/proc/{started.pid()}/net/fib_trie").read_text()  # which it has once it is up
    started.send("S")
    assert started.exit()["status"] == 0
    assert started.close() == 0


def test_a_child_that_waits_for_a_network_which_nobody_makes_ends_with_its_launcher(world: World) -> None:
    started = launch(world.plan("true", mounts=[("join-network",)], namespaces=NAMESPACES))
    pid = started.pid()
    started.process.send_signal(signal.SIGKILL)
    started.process.wait()
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}")
    started.close()


def test_nobody_is_put_into_a_group_before_the_caller_says_so(world: World, tmp_path: Path) -> None:
    started = waiting(world, ("await-client",), join=[("cgroup-join", str(tmp_path))])
    started.pid()
    started.send("A", b"\6")  # other words may come first
    (tmp_path / "cgroup.procs").touch()  # the caller makes the group only now
    started.send("G")
    started.until("w")
    assert (tmp_path / "cgroup.procs").read_text() == "0"  # it puts itself there
    started.send("S")
    assert started.exit()["status"] == 0
    started.close()


def test_a_start_that_is_cancelled_leaves_no_process(world: World) -> None:
    started = waiting(world, ("await-client",))
    pid = started.pid()
    started.send("C")
    fault = started.fault()
    assert (fault.verb, fault.path) == ("await-client", "the caller")
    assert not os.path.exists(f"/proc/{pid}")
    assert started.close() == 1


def test_a_caller_that_hangs_up_ends_the_start(world: World) -> None:
    started = waiting(world, ("await-client",))
    pid = started.pid()
    assert started.close() == 1
    assert not os.path.exists(f"/proc/{pid}")


def test_more_bytes_for_the_command_than_its_pipe_holds_are_a_fault_before_the_callers_word(world: World) -> None:
    started = waiting(world, ("await-client",))
    for _chunk in range(3):
        started.send("I", bytes(40 << 10))
    assert started.fault().verb == "await-client"
    started.close()
