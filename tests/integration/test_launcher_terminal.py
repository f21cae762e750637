"""Terminals: made inside, resized and fed from outside."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher_plan import Operation, Run, World, launch, made_world

AWAIT: list[Operation] = [("await-start", "client")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with made_world(tmp_path) as world:
        yield world


def attached(run: Run, bits: int = 6) -> Run:
    run.send("A", bytes([bits]))
    run.send("S")
    return run


def test_a_terminal_is_one_inside_and_can_be_resized(world: World) -> None:
    code = (
        "tty; test -t 0 && test -t 2 && echo all; stty size; read line; stty size; echo got $line; ls -l /dev/console"
    )
    late: list[Operation] = [("terminal", 33, 44, -1), *AWAIT]
    started = launch(world.plan("sh", "-c", code, stdio=("pty", "pty", "pty"), extra=[("console",)], late=late))
    attached(started, bits=7)
    while b"33 44" not in started.output():
        started.until("o")
    started.send("W", struct.pack("<HH", 50, 132))
    started.send("I", b"word\n")
    assert started.exit()["status"] == 0
    output = started.output().decode().replace("\r\n", "\n")
    assert output.startswith("/dev/pts/0\nall\n33 44\n"), output
    assert "50 132\ngot word\n" in output
    assert "/dev/console" in output
    started.close()


def test_what_is_typed_before_the_terminal_is_there_is_not_lost(world: World) -> None:
    late: list[Operation] = [("terminal", 0, 0, -1)]
    plan = world.plan("sh", "-c", 'read line; test "$line" = early', stdio=("pty", "pty", "pty"), late=late)
    started = launch(plan)
    started.send("I", b"early\n")
    assert started.exit()["status"] == 0
    started.close()


def test_a_terminals_output_is_whole_and_its_processes_end_with_a_hangup(world: World) -> None:
    late: list[Operation] = [("terminal", 0, 0, -1), *AWAIT]
    code = "stty -onlcr; dd if=/dev/zero bs=8192 count=256 2>/dev/null"
    started = attached(launch(world.plan("sh", "-c", code, stdio=("pty", "pty", "pty"), late=late)))
    assert started.exit()["status"] == 0
    assert len(started.output()) == 2 << 20
    started.close()


def test_interrupt_from_the_terminal_reaches_the_command_behind_init(world: World) -> None:
    late: list[Operation] = [("terminal", 0, 0, -1), *AWAIT, ("init",)]
    code = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done"
    started = attached(launch(world.plan("sh", "-c", code, stdio=("pty", "pty", "pty"), late=late)), bits=7)
    while b"ready" not in started.output():
        started.until("o")
    started.send("I", b"\x03")
    assert started.exit()["status"] == 3 << 8
    assert b"caught" in started.output()
    started.close()


def test_a_console_socket_gets_the_master(world: World) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    late: list[Operation] = [("terminal", 20, 30, "{0}")]
    started = launch(
        world.plan("sh", "-c", "stty size; read x", stdio=("pty", "pty", "pty"), late=late), fds=[theirs.fileno()]
    )
    theirs.close()
    _, ancillary, _, _ = ours.recvmsg(64, socket.CMSG_SPACE(4))
    (master,) = array.array("i", ancillary[0][2])
    assert os.read(master, 100).split() == [b"20", b"30"]
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 1, 2, 0, 0))
    os.write(master, b"\n")
    assert started.exit()["status"] == 0
    started.close()
    os.close(master)
    ours.close()
