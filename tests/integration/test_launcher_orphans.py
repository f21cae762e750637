"""The launcher without a monitor: it leaves a command that runs, or one that waits on a socket of its own."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher_plan import Operation, Run, World, launch, made_world
from oci_bundle import subreaping


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with made_world(tmp_path) as world, subreaping():
        yield world


@pytest.fixture
def door(tmp_path: Path) -> Iterator[tuple[Path, socket.socket]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(str(tmp_path / "start"))
        server.listen(4)
        yield tmp_path / "start", server


def orphan(world: World, *command: str, late: tuple[Operation, ...] = (), fds: tuple[int, ...] = ()) -> Run:
    """A plan without a monitor, and so without a signal at its death."""
    plan = world.plan(*command, stdio=("null", "null", "null"), late=late)
    return launch([("no-monitor",), *(op for op in plan if op[0] != "parent-death-signal")], fds=fds)


def parked(world: World, door: tuple[Path, socket.socket], *command: str) -> int:
    """The pid of a command that waits on the socket; its launcher is gone."""
    path = ("env", "PATH=/bin")
    late: tuple[Operation, ...] = (path, ("find-command", command[0]), ("await-start-on", "{0}", "{1}"))
    with open(door[0].parent / "report", "w+b") as report:
        report.write(bytes(4096))
        report.flush()
        started = orphan(world, *command, late=late, fds=(door[1].fileno(), report.fileno()))
    pid = started.pid()
    started.until("w")
    assert leave(started) == 0
    return pid


def leave(started: Run) -> int:
    """The pid is noted: let the launcher go."""
    started.send("D")
    return started.close()


def begin(path: Path, word: bytes = b"S") -> bytes:
    """What the waiting command answers, b"" when its connection closes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.send(word)
        return client.recv(4096)


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_command_is_left_to_the_callers_subreaper(world: World) -> None:
    started = orphan(world, "sh", "-c", "exit 5")
    pid = started.pid()
    started.until("s")
    assert leave(started) == 0
    assert status_of(pid) == 5


def test_nobody_inherits_a_command_before_the_caller_hangs_up(world: World) -> None:
    started = orphan(world, "true")
    pid = started.pid()
    started.until("s")
    time.sleep(0.2)  # it has ended by now
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    assert leave(started) == 0
    assert status_of(pid) == 0


def test_a_waiting_command_is_started_by_a_word_on_its_socket(world: World, door: tuple[Path, socket.socket]) -> None:
    pid = parked(world, door, "sh", "-c", "exit 6")
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    assert begin(door[0]) == b""
    assert status_of(pid) == 6


def test_who_connects_and_says_something_else_starts_nothing(world: World, door: tuple[Path, socket.socket]) -> None:
    pid = parked(world, door, "true")
    assert begin(door[0], b"?") == b""
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    assert begin(door[0]) == b""
    assert status_of(pid) == 0


def test_who_starts_is_told_why_it_failed(world: World, door: tuple[Path, socket.socket]) -> None:
    script = Path(world.root, "bin", "odd")
    script.write_text("#!/no/such\n")
    script.chmod(0o755)
    pid = parked(world, door, "odd")
    assert begin(door[0]) == b""
    report = (door[0].parent / "report").read_bytes()
    words = report[1:].split(b"\0")
    assert (report[:1], words[1], words[2], words[5]) == (b"f", b"exec", b"execve", b"interpreter:/no/such")
    assert status_of(pid) == 1


@pytest.mark.parametrize(
    ("command", "reason"),
    [("nope", "missing"), ("/nope", "missing"), ("/etc", "directory"), ("/bin/plain", "permission"), ("", "missing")],
)
def test_a_command_that_is_not_there_is_found_out_before_the_wait(
    world: World, door: tuple[Path, socket.socket], command: str, reason: str
) -> None:
    Path(world.root, "etc").mkdir()
    Path(world.root, "bin", "plain").write_text("text")
    late: tuple[Operation, ...] = (("env", "PATH=/bin"), ("find-command", command), ("await-start-on", "{0}", "{0}"))
    started = orphan(world, "true", late=late, fds=(door[1].fileno(),))
    fault = started.fault()
    assert (fault.verb, fault.reason) == ("find-command", reason)
    assert started.close() == 1


@pytest.mark.parametrize(("late", "last"), [((("await-start", "client"),), "w"), ((), "s")])
def test_a_command_dies_with_a_caller_that_said_nothing(world: World, late: tuple[Operation, ...], last: str) -> None:
    started = orphan(world, "sleep", "100", late=late)
    pid = started.pid()
    started.until(last)
    assert started.close() == (0 if late else 1)
    if not late:
        assert status_of(pid) == -9
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_each_wait_takes_a_start_of_its_own(world: World) -> None:
    started = orphan(world, "true", late=(("await-start", "client"), ("await-start", "client")))
    pid = started.pid()
    started.until("w")
    started.send("S")
    started.until("w")
    with pytest.raises(TimeoutError):
        started.receive(0.2)
    started.send("S")
    started.until("s")
    assert leave(started) == 0
    assert status_of(pid) == 0


def sibling(world: World, *command: str, late: tuple[Operation, ...] = (), more: tuple[Operation, ...] = ()) -> Run:
    """An orphan that has the launcher's parent, which is us, for its own."""
    plan = world.plan(*command, stdio=("null", "null", "null"), late=late)
    plan = [op for op in plan if op[0] != "parent-death-signal"]
    return launch([("no-monitor",), ("sibling",), *more, *plan])


def test_a_sibling_is_the_callers_child_from_the_beginning(world: World) -> None:
    started = sibling(world, "sh", "-c", "exit 3", late=(("await-start", "client"),))
    pid = started.pid()
    started.until("w")
    assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid())
    started.send("S")
    started.until("s")
    assert leave(started) == 0
    assert status_of(pid) == 3


def test_a_sibling_that_cannot_be_executed_is_a_failure(world: World) -> None:
    started = sibling(world, "/no/such")
    pid = started.pid()
    assert started.fault().reason == "missing"
    assert started.close() == 1
    assert status_of(pid) == 1


def test_a_sibling_that_is_lost_or_given_up_does_not_stay(world: World) -> None:
    """The launcher cannot wait for it, but sees its end."""
    lost = sibling(world, "true", more=(("await-client",), ("await-parent",)))
    pid = lost.pid()
    os.kill(pid, 9)
    lost.send("G")
    fault = lost.fault()
    assert (fault.call, fault.reason) == ("child", "")
    assert lost.close() == 1
    assert status_of(pid) == -9
    cancelled = sibling(world, "true", more=(("await-client",), ("await-parent",)))
    pid = cancelled.pid()
    cancelled.send("C")
    assert cancelled.fault().call == "recv"
    assert cancelled.close() == 1
    assert status_of(pid) == -9
