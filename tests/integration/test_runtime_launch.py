"""Plans that this package compiles, carried out by the real launcher: exits, streams, terminals, failures, threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import runtime_world
from cloison.errors import CommandNotFound, CommandNotInvocable, LaunchFailed, NotFound
from cloison.linux import proc
from cloison.model.container import Stdio
from cloison.model.mount import Mount
from cloison.runtime.compile import plan_launch
from cloison.runtime.exits import parse_exit
from cloison.runtime.launch import launch
from cloison.runtime.monitor import MonitorPlan
from cloison.runtime.session import connect, listen
from runtime_world import MARKS, PIPES, World, children, drain, expect, read_to_end

pytestmark = MARKS
busybox_root = runtime_world.busybox_root
staging = runtime_world.staging
nothing_left = runtime_world.nothing_left
world = runtime_world.world

EIGHT_MIB = ("dd", "if=/dev/zero", "bs=8192", "count=1024")


@pytest.mark.parametrize(("command", "code"), [(("true",), 0), (("sh", "-c", "exit 3"), 3), (("/bin/false",), 1)])
def test_a_command_runs_and_its_exit_is_told(world: World, command: tuple[str, ...], code: int) -> None:
    began = time.time_ns()
    with world.start(*command) as session:
        kinds = [session.receive(30).kind for _ in range(3)]
        ended = session.exit
    assert kinds == ["created", "started", "exited"]
    assert ended is not None
    assert (ended.exit_code, ended.signal) == (code, 0)
    assert began <= ended.started_ns <= ended.finished_ns <= time.time_ns()
    assert ended.max_rss_kib > 0


def test_a_container_that_is_killed_tells_the_signal(world: World) -> None:
    with world.start("sleep", "100") as session:
        expect(session, "started")
        assert proc.send_signal(session.pid, proc.start_time(session.pid), 9)
        ended = session.wait(30)
    assert ended is not None
    assert (ended.exit_code, ended.signal) == (137, 9)


def test_output_reaches_a_client_stream_by_stream_and_input_the_command(world: World) -> None:
    waiting = world.around.replace(monitor=MonitorPlan(await_start="client"))
    stdio = Stdio(stdin="pipe")
    with world.start("sh", "-c", "cat; echo problem >&2", stdio=stdio, around=waiting) as session:
        session.attach(stdin=True, stdout=True, stderr=True)
        session.start()
        session.send_input(b"hello ")
        session.send_input(b"world")
        session.end_input()
        streams = {1: b"", 2: b""}
        while session.exit is None:
            message = session.receive(30)
            if message.kind == "output":
                streams[message.stream] += message.data
    assert streams == {1: b"hello world", 2: b"problem\n"}


def test_eight_mebibytes_through_a_handed_over_descriptor_arrive_whole_though_the_reader_is_slow(world: World) -> None:
    reader, writer = os.pipe()
    with world.start(*EIGHT_MIB, stdio=Stdio(stdout=f"fd:{writer}")) as session:
        os.close(writer)
        time.sleep(0.3)
        assert drain(reader) == 8 << 20
        assert session.wait(30) is not None


def test_eight_mebibytes_through_the_monitors_relay_arrive_whole_though_the_reader_is_slow(
    world: World, tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    log = str(tmp_path / "log")
    around = world.around.replace(monitor=MonitorPlan(log=log))
    with world.start(*EIGHT_MIB, stdio=Stdio(relay_out=writer), around=around) as session:
        os.close(writer)
        time.sleep(0.3)
        assert drain(reader) == 8 << 20
        assert session.wait(30) is not None
    assert os.path.getsize(log) > 8 << 20


def test_a_terminal_has_its_size_is_resized_and_is_the_commands_own(world: World) -> None:
    script = "stty size; read line; stty size; echo got $line; tty; ls -l /dev/console; ps -o pid,tty | head -3"
    waiting = world.around.replace(monitor=MonitorPlan(await_start="client"))
    stdio = Stdio(stdin="pty", stdout="pty", stderr="pty")
    with world.start("sh", "-c", script, stdio=stdio, around=waiting, terminal=True, console_size=(24, 80)) as session:
        session.attach(stdin=True, stdout=True)
        session.start()
        seen = b""
        while b"24 80" not in seen:
            seen += expect(session, "output").data
        session.resize(rows=50, columns=132)
        session.send_input(b"words\n")
        rest, ended = read_to_end(session)
    assert ended.exit_code == 0
    lines = rest.decode().split("\r\n")
    assert "50 132" in lines
    assert "got words" in lines
    assert "/dev/pts/0" in lines
    assert any(line.startswith("c") and "/dev/console" in line for line in lines)


def test_a_third_party_attaches_by_the_listening_socket_and_detaches(world: World, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    listener = listen(path)
    around = world.around.replace(monitor=MonitorPlan(listen=listener, exit_file=str(tmp_path / "exit")))
    with world.start("sh", "-c", "read a; echo $a", stdio=Stdio(stdin="pipe"), around=around) as session:
        os.close(listener)
        expect(session, "started")
        with connect(path) as second:
            second.attach(stdin=True, stdout=True)
            second.send_input(b"by socket\n")
            text, ended = read_to_end(second)
        assert (text, ended.exit_code) == (b"by socket\n", 0)
        assert session.wait(30) == ended
    assert parse_exit((tmp_path / "exit").read_text()) == ended
    with pytest.raises(NotFound):
        connect(path)


def test_a_container_that_waits_for_us_dies_when_we_hang_up(world: World) -> None:
    around = world.around.replace(monitor=MonitorPlan(await_start="client"))
    session = world.start("touch", "/srv/never", around=around)
    expect(session, "created")
    started = proc.start_time(session.pid)
    session.close()
    deadline = time.monotonic() + 30
    while proc.is_alive(session.pid, started) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not proc.is_alive(session.pid, started)
    assert not os.path.exists(f"{world.root.mount.source}/srv/never")


def test_a_detached_container_lives_on_and_its_end_calls_the_reaper(world: World, tmp_path: Path) -> None:
    mark = tmp_path / "reaped"
    around = world.around.replace(
        monitor=MonitorPlan(exit_file=str(tmp_path / "exit"), reap=("/bin/sh", "-c", f"env > {mark}"))
    )
    session = world.start("sh", "-c", "sleep 0.3; exit 5", stdio=PIPES.replace(detached=True), around=around)
    expect(session, "started")
    session.close()
    assert children() == []
    deadline = time.monotonic() + 30
    while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert parse_exit((tmp_path / "exit").read_text()).exit_code == 5
    assert {line.partition("=")[0] for line in mark.read_text().splitlines()} <= {"PATH", "PWD", "SHLVL", "_"}


@pytest.mark.parametrize(
    ("command", "kind", "message"),
    [
        ("nope", CommandNotFound, 'exec: "nope": executable file not found in $PATH'),
        ("/srv/nope", CommandNotFound, 'exec: "/srv/nope": no such file or directory'),
        ("/srv/bad-interpreter", CommandNotFound, "its interpreter '/bin/nope' does not exist"),
        ("/srv/windows", CommandNotFound, "its interpreter"),
        ("/srv/foreign", CommandNotInvocable, "built for another architecture"),
        ("/srv/not-executable", CommandNotInvocable, 'exec: "/srv/not-executable": permission denied'),
        ("/srv", CommandNotInvocable, 'exec: "/srv": is a directory'),
        ("/srv/no-format", CommandNotInvocable, "exec format error"),
    ],
)
def test_each_reason_why_a_command_cannot_start_is_told_apart(
    world: World, command: str, kind: type[LaunchFailed], message: str
) -> None:
    with world.start(command) as session, pytest.raises(kind) as caught:
        session.wait(30)
    assert message in str(caught.value)
    assert caught.value.operation == f"exec {command} {command}"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("change", "message", "line"),
    [
        (
            {"mounts": (Mount(type="tmpfs", source="t", target="/tmp", options=("size=lots",)),)},
            "cannot mount tmpfs on /tmp: ",
            "size=lots",
        ),
        (
            {"mounts": (Mount(type="bind", source="/no/such", target="/tmp"),)},
            "cannot bind /no/such on /tmp: ",
            "bind /no/such",
        ),
        ({"cwd": "/bin/sh"}, "/bin/sh", "/bin/sh"),
    ],
    ids=["option", "source", "cwd"],
)
def test_a_failed_operation_names_its_line_call_and_errno(
    world: World, change: dict[str, object], message: str, line: str
) -> None:
    if "mounts" in change:
        world.mounts = (*world.mounts, *change.pop("mounts"))  # type: ignore[misc]
    with world.start("true", **change) as session, pytest.raises(LaunchFailed) as caught:
        session.wait(30)
    assert message in str(caught.value)
    assert line in caught.value.operation
    assert caught.value.errno


def test_eight_threads_of_a_large_program_launch_side_by_side(world: World) -> None:
    heap = bytearray(os.urandom(1 << 20)) * 200
    codes: list[int] = []

    def work(number: int) -> None:
        for turn in range(5):
            with world.start("sh", "-c", f"exit {number * 5 + turn}") as session:
                ended = session.wait(60)
                codes.append(ended.exit_code if ended else -1)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == list(range(40))
    assert len(heap) == 200 << 20


def test_a_program_without_standard_streams_can_launch(world: World) -> None:
    script = f"""
import os, sys
sys.path[:0] = {[*sys.path]!r}
for fd in (0, 1, 2):
    os.close(fd)
from runtime_world import World
with World({world.root.mount.source!r}, {world.around.staging!r}).start("sh", "-c", "exit 7") as session:
    os._exit(session.wait(30).exit_code)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 7


def test_the_same_descriptor_may_serve_as_two_streams(world: World) -> None:
    reader, writer = os.pipe()
    with world.start(
        "sh", "-c", "echo one; echo two >&2", stdio=Stdio(stdout=f"fd:{writer}", stderr=f"fd:{writer}")
    ) as session:
        session.wait(30)
    os.close(writer)
    assert os.read(reader, 99) == b"one\ntwo\n"
    os.close(reader)


def test_an_init_reaps_orphans_and_hands_the_exit_code_on(world: World) -> None:
    spec = world.spec("sh", "-c", "(sleep 0.1 &) ; echo $$; exit 9").replace(init=True)
    with launch(plan_launch(spec, around=world.around, stdio=PIPES)) as session:
        ended = session.wait(30)
    assert ended is not None
    assert ended.exit_code == 9
