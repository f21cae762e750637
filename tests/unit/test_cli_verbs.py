"""What each verb asks of the engine, prints and exits with."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cli_fakes import ID, Line, line, record_of, stdin
from cloison.errors import (
    CommandNotFound,
    CommandNotInvocable,
    Conflict,
    Denied,
    Internal,
    NotFound,
    Unavailable,
)
from cloison.model.container import ContainerSpec, ContainerState, Stdio

__all__ = ["line", "stdin"]  # the fixtures

RUNNING = ContainerState(status="running", pid=7, started_ns=1)


# --- run


def test_run_detached_prints_the_whole_id(line: Line) -> None:
    assert line("run", "-d", "img") == 0
    assert line.out == f"{ID}\n"
    assert line.engine.asked("run")[1] == Stdio(detached=True)
    assert line.engine.session.closed


def test_run_gives_the_exit_code_of_the_command(line: Line) -> None:
    line.engine.state = ContainerState(status="exited", exit_code=42)
    assert line("run", "img", "false") == 42
    assert line.out == line.err == ""


def test_a_container_that_goes_away_gets_the_callers_own_descriptors(line: Line, stdin: Path) -> None:
    line("run", "--rm", "-i", "img")
    assert line.engine.asked("run")[1] == Stdio(stdin="fd:0", stdout="fd:1", stderr="fd:2")


def test_a_container_that_stays_keeps_a_log_and_its_output_is_relayed(line: Line, stdin: Path) -> None:
    line("run", "img")
    assert line.engine.asked("run")[1] == Stdio(stdin="null", relay_out=1, relay_err=2)


def test_streams_that_are_not_attached_are_not_shown(line: Line) -> None:
    line("run", "--rm", "-a", "stdout", "img")
    assert line.engine.asked("run")[1] == Stdio(stdin="null", stdout="fd:1", stderr="null")


def test_without_a_log_nothing_is_relayed(line: Line, stdin: Path) -> None:
    line("run", "--log-driver", "none", "img")
    assert line.engine.asked("run")[1] == Stdio(stdin="null", stdout="fd:1", stderr="fd:2")


def test_a_directory_is_not_handed_over(line: Line) -> None:
    saved, fd = os.dup(0), os.open("/", os.O_RDONLY)
    os.dup2(fd, 0)
    try:
        assert line("run", "--rm", "-i", "img") == 125
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(fd)
    assert line.err.startswith("cloison: stdin is a directory")
    assert not line.engine.calls


def test_a_terminal_is_wanted_for_a_terminal(line: Line, stdin: Path) -> None:
    assert line("run", "-it", "img") == 125
    assert line.err == ("cloison: cannot attach stdin to a TTY-enabled container because stdin is not a terminal\n")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CommandNotFound("no such command", operation="exec x"), 127),
        (CommandNotInvocable("cannot execute", operation="exec x"), 126),
        (NotFound("No such image: x"), 125),
        (Denied("you may not"), 125),
        (Internal("broken"), 125),
    ],
)
def test_an_error_of_run_has_dockers_exit_status(line: Line, error: Exception, status: int) -> None:
    line.engine.errors["run"] = error
    assert line("run", "img") == status
    assert line.err == f"cloison: {error}\n"


def test_an_error_is_what_why_and_a_hint(line: Line) -> None:
    line.engine.errors["run"] = Unavailable("cannot pull x", why="connection refused", hint="start the registry")
    assert line("run", "img") == 125
    assert line.err == "cloison: cannot pull x: connection refused\nhint: start the registry\n"


def test_a_bug_is_one_line_and_a_traceback_only_with_debug(line: Line) -> None:
    line.engine.errors["run"] = ZeroDivisionError("by zero")
    assert line("run", "img") == 125
    assert line.err.startswith("cloison: internal error: ZeroDivisionError: by zero\n")
    assert "Traceback" not in line.err
    assert line("--debug", "run", "img") == 125
    assert "Traceback" in line.err


def test_control_characters_in_an_error_do_not_reach_the_terminal(line: Line) -> None:
    line.engine.errors["run"] = NotFound("No such image: \x1b[2J")
    line("run", "img")
    assert "\x1b" not in line.err and "\\x1b[2J" in line.err


def test_out_of_memory_is_said(line: Line) -> None:
    line.engine.state = ContainerState(status="exited", exit_code=137, oom_killed=True, memory_peak_bytes=64 << 20)
    assert line("run", "--name", "big", "img") == 137
    assert line.err == "cloison: container big ran out of memory (OOM killed, peak memory 64MiB)\n"


def test_news_of_a_pull_goes_to_standard_error_unless_it_shall_be_quiet(line: Line) -> None:
    line.engine.news = "latest: Pulling from library/img"
    assert line("run", "img") == 0
    assert line.out == ""
    assert line.err == "latest: Pulling from library/img\n"
    assert line("run", "-q", "img") == 0
    assert line.err == ""


def test_a_cidfile_is_there_before_the_command_starts(line: Line, tmp_path: Path) -> None:
    path = tmp_path / "cid"
    assert line("run", "--cidfile", str(path), "img") == 0
    assert [call[0] for call in line.engine.calls] == ["create", "start", "finish"]
    assert path.read_text() == ID


def test_a_container_that_cannot_start_is_not_left_behind_and_the_reason_is_told(line: Line, tmp_path: Path) -> None:
    """With a cidfile create and start are two steps; the engine may have taken the container away by itself."""
    line.engine.errors["start"] = CommandNotFound("no such program", operation="exec x")
    assert line("run", "--rm", "--cidfile", str(tmp_path / "cid"), "img", "x") == 127
    assert line.err == "cloison: no such program\n"


def test_a_dry_run_prints_the_plan_and_runs_nothing(line: Line) -> None:
    assert line("run", "--dry-run", "img", "sh") == 0
    assert line.out.endswith("exec sh\n")
    assert [call[0] for call in line.engine.calls] == ["dry_run"]


def test_explain_says_what_each_operation_is_for_once(line: Line) -> None:
    assert line("explain", "img", "sh") == 0
    assert line.out.splitlines() == [
        "# a view of its own on these parts of the system", "new-namespaces mnt pid", "# mount a file system",
        "mount proc proc /proc", "mount tmpfs tmpfs /dev", "# the command", "exec sh",
    ]  # fmt: skip


def test_signals_are_forwarded_while_the_command_runs(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    def finish(_session: object) -> ContainerState:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            os.kill(os.getpid(), number)
        return ContainerState(status="exited", exit_code=5)

    monkeypatch.setattr(line.engine.containers, "finish", finish)
    before = signal.getsignal(signal.SIGINT)
    assert line("run", "img") == 5
    assert [call[2] for call in line.engine.calls if call[0] == "signal"] == [15, 2, 10, 1]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_while_the_container_starts_is_kept_for_it(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command may have said that it is ready a moment before the engine says that it runs."""
    started = line.engine.containers.run

    def run(spec: ContainerSpec, **words: Any) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        return started(spec, **words)

    monkeypatch.setattr(line.engine.containers, "run", run)
    assert line("run", "img") == 0
    assert [call[0] if call[0] != "signal" else call[2] for call in line.engine.calls] == ["run", 15, 10, "finish"]


def test_a_second_fatal_signal_ends_a_start_that_hangs(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_spec: ContainerSpec, **_words: object) -> object:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("still here")

    monkeypatch.setattr(line.engine.containers, "run", run)
    assert line("run", "img") == 143
    assert line.err == ""


def test_a_fatal_signal_ends_a_pull_at_once(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_spec: ContainerSpec, *, progress: Any, **_words: object) -> object:
        progress.message("latest: Pulling from library/img")
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("still here")

    monkeypatch.setattr(line.engine.containers, "run", run)
    assert line("run", "img") == 130


def test_a_signal_to_a_container_that_has_gone_is_no_error(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.engine.errors["signal"] = Conflict("container is not running")

    def finish(_session: object) -> ContainerState:
        os.kill(os.getpid(), signal.SIGTERM)
        return ContainerState(status="exited", exit_code=3)

    monkeypatch.setattr(line.engine.containers, "finish", finish)
    assert line("run", "img") == 3
    assert line.err == ""


def test_signals_are_not_forwarded_when_told_so(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    def finish(_session: object) -> ContainerState:
        os.kill(os.getpid(), signal.SIGINT)
        return ContainerState(status="exited")

    monkeypatch.setattr(line.engine.containers, "finish", finish)
    assert line("run", "--sig-proxy=false", "img") == 130
    assert not [call for call in line.engine.calls if call[0] == "signal"]


def test_a_timeout_kills_the_container_and_says_so(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[str] = []
    monkeypatch.setattr(line.engine.containers, "kill", lambda name, signal: killed.append(f"{name} {signal}"))

    def finish(_session: object) -> ContainerState:
        deadline = time.monotonic() + 30
        while not killed and time.monotonic() < deadline:
            time.sleep(0.01)
        return ContainerState(status="exited", exit_code=137)

    monkeypatch.setattr(line.engine.containers, "finish", finish)
    assert line("run", "--timeout", "1", "--name", "slow", "img") == 137
    assert killed == [f"{ID} KILL"]
    assert "slow was killed at its --timeout" in line.err


# --- exec, start, attach


def test_exec_gives_the_commands_exit_code(line: Line, stdin: Path) -> None:
    line.engine.state = ContainerState(exit_code=9)
    assert line("exec", "-i", "-e", "A=1", "-w", "/w", "-u", "0", "web", "cat", "-n") == 9
    name, spec, stdio = line.engine.asked("exec")
    assert (name, spec.command, spec.env, spec.workdir, spec.user) == ("web", ("cat", "-n"), ("A=1",), "/w", "0")
    assert stdio == Stdio(stdin="fd:0", stdout="fd:1", stderr="fd:2")


@pytest.mark.parametrize(
    ("error", "status"), [(CommandNotFound("x"), 127), (CommandNotInvocable("x"), 126), (Conflict("not running"), 1)]
)
def test_an_error_of_exec_has_dockers_exit_status(line: Line, error: Exception, status: int) -> None:
    line.engine.errors["exec"] = error
    assert line("exec", "web", "x") == status


def test_a_detached_exec_blocks_on_nothing(line: Line) -> None:
    assert line("exec", "-d", "web", "x") == 0
    assert line.engine.asked("exec")[2] == Stdio(stdin="null", stdout="null", stderr="null", detached=True)


def test_start_echoes_names_continues_past_errors_and_fails_at_the_end(line: Line) -> None:
    line.engine.records = [record_of("a", id="a" * 64), record_of("b", id="b" * 64, state=RUNNING)]
    assert line("start", "a", "nope", "b") == 1
    assert line.out == "a\nb\n"
    assert line.err == "cloison: No such container: nope\n"
    assert [call[1] for call in line.engine.calls] == ["a" * 64]  # b runs already


def test_start_attached_gives_the_exit_code(line: Line) -> None:
    line.engine.records = [record_of("a")]
    line.engine.state = ContainerState(status="exited", exit_code=4)
    assert line("start", "-a", "a") == 4
    assert line.engine.asked("start")[1] == Stdio(stdin="null", relay_out=1, relay_err=2)


def test_only_one_container_is_attached_at_once(line: Line) -> None:
    assert line("start", "-a", "a", "b") == 1
    assert "multiple containers at once" in line.err


def test_attach_wants_a_running_container(line: Line) -> None:
    line.engine.records = [record_of("a")]
    assert line("attach", "a") == 1
    assert line.err == "cloison: cannot attach to a stopped container, start it first\n"


def test_attach_copies_both_streams_and_gives_the_exit_code(line: Line) -> None:
    line.engine.records = [record_of("a", state=RUNNING)]
    for packet in (b"oout\n", b"eerr\n", b"omore\n", b"x7"):
        line.engine.session.far.send(packet)
    assert line("attach", "a") == 7
    assert (line.out, line.err) == ("out\nmore\n", "err\n")


def test_attach_sends_standard_input_to_its_end(line: Line, stdin: Path) -> None:
    spec = ContainerSpec(image="img", interactive=True)
    line.engine.records = [record_of("a", state=RUNNING, spec=spec)]
    session = line.engine.session

    def answer() -> None:  # once the input has come, and its end
        session.far.recv(100)
        deadline = time.monotonic() + 30
        while ("end", None) not in session.sent and time.monotonic() < deadline:
            time.sleep(0.005)
        session.far.send(b"x0")

    monitor = threading.Thread(target=answer)
    monitor.start()
    assert line("attach", "a") == 0
    monitor.join()
    assert session.sent[-2:] == [("input", b"input"), ("end", None)]
