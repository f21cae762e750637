"""Processes by number and start time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from cloison.errors import InvalidArgument, NotFound
from cloison.linux import proc


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as child:
        yield child
        child.kill()


def test_a_start_time_is_stable_and_differs_from_a_later_process(sleeper: subprocess.Popen[bytes]) -> None:
    assert proc.start_time(sleeper.pid) == proc.start_time(sleeper.pid)
    assert proc.start_time(os.getpid()) < proc.start_time(sleeper.pid) + 1
    assert proc.start_time(1) <= proc.start_time(os.getpid())


def test_a_command_with_blanks_and_parentheses_does_not_confuse() -> None:
    code = "import ctypes,sys; ctypes.CDLL(None).prctl(15, b') R 1 (x)', 0, 0, 0); print(); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()
        assert abs(proc.start_time(child.pid) - proc.start_time(os.getpid())) < 100 * 3600 * 24
        assert proc.is_alive(child.pid, proc.start_time(child.pid))
        child.stdin.close()


def test_a_signal_reaches_the_process_that_was_meant(sleeper: subprocess.Popen[bytes]) -> None:
    assert proc.send_signal(sleeper.pid, proc.start_time(sleeper.pid), signal.SIGTERM)
    assert sleeper.wait(5) == -signal.SIGTERM


def test_a_signal_never_reaches_another_process_with_the_number(sleeper: subprocess.Popen[bytes]) -> None:
    other = proc.start_time(sleeper.pid) - 1
    assert not proc.send_signal(sleeper.pid, other, signal.SIGKILL)
    with pytest.raises(NotFound):
        proc.open_pidfd(sleeper.pid, other)
    assert not proc.is_alive(sleeper.pid, other)
    time.sleep(0.05)
    assert sleeper.poll() is None


def test_a_zombie_is_not_alive(sleeper: subprocess.Popen[bytes]) -> None:
    started = proc.start_time(sleeper.pid)
    assert proc.is_alive(sleeper.pid, started)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not proc.is_alive(sleeper.pid, started)


def test_a_process_that_is_gone_is_not_found(sleeper: subprocess.Popen[bytes]) -> None:
    started = proc.start_time(sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    with pytest.raises(NotFound):
        proc.start_time(sleeper.pid)
    with pytest.raises(NotFound):
        proc.open_pidfd(sleeper.pid, started)
    assert not proc.is_alive(sleeper.pid, started)
    assert not proc.send_signal(sleeper.pid, started, signal.SIGTERM)


def test_a_pidfd_is_not_inherited_and_none_is_left_open(sleeper: subprocess.Popen[bytes]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    fd = proc.open_pidfd(sleeper.pid, proc.start_time(sleeper.pid))
    assert not os.get_inheritable(fd)
    os.close(fd)
    with pytest.raises(NotFound):
        proc.open_pidfd(sleeper.pid, 1)
    proc.send_signal(sleeper.pid, proc.start_time(sleeper.pid), 0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_boot_id_is_a_uuid_that_stays() -> None:
    assert len(proc.boot_id()) == 36
    assert proc.boot_id() == proc.boot_id()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", 15), ("SIGTERM", 15), ("sigterm", 15), ("15", 15), ("9", 9), ("64", 64), ("RTMIN", 34),
        ("SIGRTMIN+3", 37), ("rtmin+30", 64), ("RTMAX", 64), ("RTMAX-1", 63), ("IOT", 6), ("SIGPOLL", 29),
    ],
)  # fmt: skip
def test_a_signal_is_understood(text: str, number: int) -> None:
    assert proc.parse_signal(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "65", "-1", "+9", "9 ", "NOPE", "SIG", "SIGSIGTERM", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMAX-31",
     "١٥", "ſIGTERM", "1_5", "15.0", "0x9", "RTMIN+", "999999999999"],
)  # fmt: skip
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid signal"):
        proc.parse_signal(text)


def test_names_and_numbers_agree_with_pythons_own() -> None:
    for member in signal.Signals:
        assert proc.parse_signal(member.name) == member
        assert proc.parse_signal(proc.signal_name(member)) == member
    assert [proc.signal_name(n) for n in (15, 34, 37, 64, 32)] == [
        "SIGTERM",
        "SIGRTMIN",
        "SIGRTMIN+3",
        "SIGRTMIN+30",
        "SIG32",
    ]
