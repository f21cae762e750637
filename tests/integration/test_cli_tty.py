"""The command line on a real pseudo-terminal, with real containers: job control, sizes, detaching, signals."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from harness import Cloison, until
from screen import Screen

OFFLINE = ("--network", "none")


@pytest.fixture
def show(cloison: Cloison) -> Iterator[Callable[..., Screen]]:
    """``show("run", …) -> Screen``; whatever a failed test leaves is taken away."""
    screens: list[Screen] = []

    def start(*words: str, **size: int) -> Screen:
        screens.append(Screen(cloison, *words, **size))
        return screens[-1]

    yield start
    for screen in screens:
        screen.close()
    cloison.remove_all()


@pytest.fixture
def shell(show: Callable[..., Screen], busybox_image: str) -> Screen:
    screen = show("run", "--rm", "-it", *OFFLINE, busybox_image, "sh", rows=31, columns=101)
    screen.see("/ # ")
    return screen


def test_an_interactive_shell_has_a_terminal_of_the_right_size(shell: Screen) -> None:
    shell.type("stty size; tty\r")
    shell.see("31 101")
    shell.see("/dev/pts/0")
    shell.resize(40, 120)
    shell.type("stty size\r")
    shell.see("40 120")
    shell.type("exit 5\r")
    assert shell.end() == 5
    assert shell.is_cooked()


def test_control_c_interrupts_the_program_inside_and_nothing_else(shell: Screen) -> None:
    shell.type("sh -c 'echo go; exec sleep 60'\r")
    shell.see("\ngo")  # said by the program in the foreground itself
    shell.type("\x03")
    shell.see("/ # ")
    shell.type("echo code=$?\r")
    shell.see("code=130")
    shell.type("exit\r")
    assert shell.end() == 0


def test_job_control_works(shell: Screen) -> None:
    shell.type("sh -c 'echo go; exec cat'\r")
    shell.see("\ngo")
    shell.type("\x1a")
    shell.see("Stopped")
    shell.see("/ # ")
    shell.type("fg\r")
    time.sleep(0.3)
    shell.type("still here\r")
    shell.see("still here\r\nstill here")
    shell.type("\x04")
    shell.see("/ # ")
    shell.type("exit 3\r")
    assert shell.end() == 3


@pytest.mark.parametrize("attempt", range(5))
def test_output_of_a_quick_command_on_a_terminal_is_never_lost(
    show: Callable[..., Screen], busybox_image: str, attempt: int
) -> None:
    screen = show("run", "--rm", "-it", *OFFLINE, busybox_image, "echo", f"only-{attempt}")
    screen.see(f"only-{attempt}")
    assert screen.end() == 0


def test_a_container_is_detached_from_and_attached_to_again(
    cloison: Cloison, show: Callable[..., Screen], busybox_image: str
) -> None:
    screen = show("run", "-it", "--name", "tty-detach", *OFFLINE, busybox_image, "sh")
    screen.see("/ # ")
    screen.type("X=kept\r\x10\x11")
    assert screen.end() == 0
    assert screen.is_cooked()
    assert cloison.inspect("tty-detach")["State"]["Status"] == "running"

    again = show("attach", "tty-detach")
    until(lambda: not again.is_cooked(), what="the terminal's raw mode")
    again.type("echo $X$X\r")
    again.see("keptkept")
    again.type("\x10\x11")
    again.see("read escape sequence")
    assert again.end() == 1

    last = show("attach", "--detach-keys", "ctrl-a,d", "tty-detach")
    until(lambda: not last.is_cooked(), what="the terminal's raw mode")
    last.type("exit 6\r")
    assert last.end() == 6
    assert last.is_cooked()
    assert "keptkept" in cloison.ok("logs", "tty-detach")
    cloison.ok("rm", "tty-detach")


def test_exec_has_a_terminal_of_its_own(cloison: Cloison, show: Callable[..., Screen], busybox_image: str) -> None:
    cloison.ok("run", "-d", "--name", "tty-exec", *OFFLINE, busybox_image, "sleep", "300")
    screen = show("exec", "-it", "tty-exec", "sh", rows=20, columns=70)
    screen.see("/ # ")
    screen.type("stty size; ps\r")
    screen.see("20 70")
    screen.see("sleep 300")
    screen.type("exit 4\r")
    assert screen.end() == 4
    assert screen.is_cooked()
    cloison.ok("rm", "-f", "tty-exec")


def test_a_container_on_a_terminal_that_is_not_its_own_gets_pipes(
    cloison: Cloison, show: Callable[..., Screen], busybox_image: str
) -> None:
    """A program that held the user's terminal could type into it."""
    screen = show("run", "--rm", *OFFLINE, busybox_image, "sh", "-c", "tty; tty <&1; tty <&2; echo end")
    for _ in range(3):
        screen.see("not a tty")
    screen.see("end")
    assert screen.end() == 0


def test_input_from_a_terminal_without_one_inside_ends_with_control_d(
    cloison: Cloison, show: Callable[..., Screen], busybox_image: str
) -> None:
    screen = show("run", "--rm", "-i", *OFFLINE, busybox_image, "sh", "-c", "tr a-z A-Z; echo end")
    screen.type("shout\n\x04")
    screen.see("SHOUT")
    screen.see("end")
    assert screen.end() == 0


def test_control_c_is_forwarded_to_a_container_without_terminal(
    cloison: Cloison, show: Callable[..., Screen], busybox_image: str
) -> None:
    script = 'trap "echo caught; exit 9" INT; echo ready; while :; do sleep 0.1; done'
    screen = show("run", "--rm", *OFFLINE, busybox_image, "sh", "-c", script)
    screen.see("ready")
    screen.type("\x03")
    screen.see("caught")
    assert screen.end() == 9


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_of_the_client_reach_the_command(cloison: Cloison, busybox_image: str, number: int) -> None:
    name = signal.Signals(number).name.removeprefix("SIG")
    script = f'trap "echo caught; exit 7" {name}; echo ready; while :; do sleep 0.1; done'
    client = cloison.spawn(
        "run", "--rm", *OFFLINE, busybox_image, "sh", "-c", script, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert client.stdout is not None
    with client:
        assert client.stdout.readline() == b"ready\n"
        client.send_signal(number)
        assert client.stdout.read() == b"caught\n"
        assert client.wait(20) == 7


def test_signals_of_the_client_reach_a_command_of_exec_and_no_other(cloison: Cloison, busybox_image: str) -> None:
    cloison.ok("run", "-d", "--name", "tty-signal", *OFFLINE, busybox_image, "sleep", "300")
    script = 'trap "echo caught; exit 7" TERM; echo ready; while :; do sleep 0.1; done'
    client = cloison.spawn("exec", "tty-signal", "sh", "-c", script, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert client.stdout is not None
    with client:
        assert client.stdout.readline() == b"ready\n"
        client.send_signal(signal.SIGTERM)
        assert client.stdout.read() == b"caught\n"
        assert client.wait(20) == 7
    assert cloison.inspect("tty-signal")["State"]["Status"] == "running"
    cloison.ok("rm", "-f", "tty-signal")


def test_a_killed_client_leaves_the_terminal_usable_and_no_container(
    cloison: Cloison, show: Callable[..., Screen], busybox_image: str
) -> None:
    screen = show("run", "--rm", "-it", "--sig-proxy=false", *OFFLINE, busybox_image, "sh")
    screen.see("/ # ")
    assert not screen.is_cooked()
    screen.process.send_signal(signal.SIGTERM)
    assert screen.end() == 128 + signal.SIGTERM
    assert screen.is_cooked()
    cloison.remove_all()


def test_piped_input_and_output_go_through_whole(cloison: Cloison, busybox_image: str) -> None:
    data = "0123456789abcdef" * 65536
    done = cloison("run", "--rm", "-i", *OFFLINE, busybox_image, "cat", input=data)
    assert (done.returncode, done.stdout, done.stderr) == (0, data, "")


def test_a_terminal_is_refused_where_there_is_none(cloison: Cloison, busybox_image: str) -> None:
    done = cloison("run", "--rm", "-it", *OFFLINE, busybox_image, "true")
    assert done.returncode == 125
    assert "cannot attach stdin to a TTY-enabled container because stdin is not a terminal" in done.stderr
    assert cloison.ok("run", "--rm", "-t", *OFFLINE, busybox_image, "tty") == "/dev/pts/0"


def test_a_reader_that_leaves_early_is_no_error(cloison: Cloison, busybox_image: str) -> None:
    for index in range(3):
        cloison.ok("create", "--name", f"tty-pipe-{index}", *OFFLINE, busybox_image, "true")
    done = cloison.shell("cloison ps -a | head -1; cloison ps -a --no-trunc | true")
    assert done.stdout.startswith("CONTAINER ID")
    assert done.stderr == ""
    cloison.remove_all()
