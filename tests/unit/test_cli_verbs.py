"""What each verb asks of the engine, prints and exits with."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli_fakes import ID, Line, image_of, line, record_of
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

__all__ = ["line"]  # the fixture

RUNNING = ContainerState(status="running", pid=7, started_ns=1)


@pytest.fixture
def stdin(tmp_path: Path) -> Iterator[Path]:
    """Standard input is a file of ours: descriptor 0 of the test runner may be anything."""
    path = tmp_path / "stdin"
    path.write_text("input")
    saved, fd = os.dup(0), os.open(path, os.O_RDONLY)
    os.dup2(fd, 0)
    os.close(fd)
    yield path
    os.dup2(saved, 0)
    os.close(saved)


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


def test_a_pull_is_announced_on_standard_error_in_dockers_words(line: Line) -> None:
    line.engine.news = "latest: Pulling from library/img"
    assert line("run", "img") == 0
    assert line.out == ""
    assert line.err == "Unable to find image 'img:latest' locally\nlatest: Pulling from library/img\n"
    assert line("run", "-q", "img") == 0
    assert line.err == ""


def test_a_cidfile_is_there_before_the_command_starts(line: Line, tmp_path: Path) -> None:
    path = tmp_path / "cid"
    assert line("run", "--cidfile", str(path), "img") == 0
    assert [call[0] for call in line.engine.calls] == ["create", "start", "finish"]
    assert path.read_text() == ID


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
    import time

    killed: list[str] = []
    monkeypatch.setattr(line.engine.containers, "kill", lambda name, signal: killed.append(f"{name} {signal}"))

    def finish(_session: object) -> ContainerState:
        deadline = time.monotonic() + 10
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

    def answer() -> None:  # once the input has come
        session.far.recv(100)
        session.far.send(b"x0")

    monitor = threading.Thread(target=answer)
    monitor.start()
    assert line("attach", "a") == 0
    monitor.join()
    assert ("input", b"input") in session.sent


# --- lifecycle


def test_stop_prints_names_in_order_and_passes_its_flags(line: Line) -> None:
    line.engine.records = [record_of(name, id=name[0] * 64) for name in ("aa", "bb", "cc")]
    assert line("stop", "-t", "3", "-s", "INT", "cc", "aa", "nope", "bb") == 1
    assert line.out == "cc\naa\nbb\n"
    assert line.err == "cloison: No such container: nope\n"
    assert sorted(line.engine.calls) == [("stop", name, 3, "INT") for name in ("aa", "bb", "cc")]


def test_a_forced_removal_of_nothing_succeeds(line: Line) -> None:
    assert line("rm", "-f", "nope") == 0
    assert (line.out, line.err) == ("", "cloison: No such container: nope\n")
    assert line("rm", "nope") == 1


def test_rm_passes_its_flags(line: Line) -> None:
    line.engine.records = [record_of("a")]
    assert line("rm", "-fv", "a") == 0
    assert line.engine.calls == [("remove", "a", True, True)]


def test_wait_prints_codes_and_succeeds(line: Line) -> None:
    line.engine.records = [
        record_of("a", id="a" * 64, state=ContainerState(exit_code=137)), record_of("b", id="b" * 64),
    ]  # fmt: skip
    assert line("wait", "a", "b") == 0
    assert line.out == "137\n0\n"


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (("kill", "a"), ("kill", "a", "KILL")),
        (("kill", "-s", "HUP", "a"), ("kill", "a", "HUP")),
        (("restart", "--time=5", "a"), ("restart", "a", 5)),
        (("pause", "a"), ("pause", "a")),
        (("rename", "a", "b"), ("rename", "a", "b")),
        (("container", "kill", "a"), ("kill", "a", "KILL")),
        (("_reap", ID), ("reap", ID)),
    ],
)
def test_a_verb_asks_the_engine_for_one_thing(line: Line, words: tuple[str, ...], call: tuple[object, ...]) -> None:
    assert line(*words) == 0, line.err
    assert line.engine.calls == [call]


def test_logs_go_to_the_matching_descriptor_with_their_times(line: Line) -> None:
    second = 1_000_000_000
    line.engine.entries = [
        SimpleNamespace(stream=1, time_ns=second, data=b"one\ntwo\nthr"),
        SimpleNamespace(stream=2, time_ns=2 * second, data=b"err\n"),
        SimpleNamespace(stream=1, time_ns=3 * second, data=b"ee\nfour\n"),
    ]
    assert line("logs", "web") == 0
    assert (line.out, line.err) == ("one\ntwo\nthree\nfour\n", "err\n")
    assert line("logs", "-t", "web") == 0
    assert line.out.splitlines() == [
        "1970-01-01T00:00:01.000000000Z one", "1970-01-01T00:00:01.000000000Z two",
        "1970-01-01T00:00:01.000000000Z three", "1970-01-01T00:00:03.000000000Z four",
    ]  # fmt: skip
    assert line.err == "1970-01-01T00:00:02.000000000Z err\n"


def test_logs_asks_for_what_its_flags_say(line: Line) -> None:
    assert line("logs", "-f", "-n", "5", "--since", "100", "--until", "1970-01-01T00:05:00Z", "web") == 0
    assert line.engine.asked("logs")[1] == {
        "tail": 5, "since_ns": 100 * 10**9, "until_ns": 300 * 10**9, "follow": True,
    }  # fmt: skip
    line.engine.calls.clear()
    assert line("logs", "--tail", "all", "web") == 0
    assert line.engine.asked("logs")[1]["tail"] is None
    assert line("logs", "--since", "yesterday", "web") == 125
    assert line("logs", "-n", "few", "web") == 125


# --- images


def test_image_verbs_ask_for_what_their_words_say(line: Line, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(b"tar")
    line.engine.listings = [image_of()]
    assert line("tag", "a", "b") == 0
    assert line("load", "-i", str(archive)) == 0
    assert line.out == "Loaded image: debian:bookworm\nLoaded image ID: sha256:" + "f" * 64 + "\n"
    assert line("import", "-c", "CMD sh", "-m", "note", str(archive), "new:1") == 0
    assert line.out == "sha256:" + "d" * 64 + "\n"
    assert line("image", "from-host", "host/x", "sh", "ls") == 0
    assert line.engine.calls == [
        ("tag", "a", "b"), ("load", b"tar"), ("import", b"tar", "new:1", ("CMD sh",), "note"),
        ("from_host", "host/x", ("sh", "ls")),
    ]  # fmt: skip


def test_import_and_load_read_standard_input(line: Line, stdin: Path) -> None:
    line.engine.listings = [image_of()]
    assert line("import", "-") == 0
    assert line.engine.asked("import")[:2] == (b"input", "")
    os.lseek(0, 0, os.SEEK_SET)
    assert line("load", "-q") == 0
    assert line.engine.asked("load") == (b"input",)
    assert line.out == ""


def test_rmi_continues_past_errors(line: Line) -> None:
    line.engine.listings = [image_of("a:1")]
    assert line("rmi", "nope", "a:1") == 1
    assert (line.out, line.err) == ("Untagged: a:1\n", "cloison: No such image: nope\n")


def test_pull_prints_the_canonical_name_last(line: Line) -> None:
    line.engine.listings = [image_of()]
    assert line("pull", "--platform", "linux/arm64", "debian") == 0
    assert line.engine.calls == [("pull", "debian", "linux/arm64")]
    assert line.out.splitlines() == ["Using default tag: latest", "pulling", "docker.io/library/debian:latest"]
    assert line("pull", "-q", "debian:12") == 0
    assert line.out == "docker.io/library/debian:12\n"


# --- the whole


def test_version_and_info(line: Line) -> None:
    assert line("--version") == 0
    assert line.out.startswith("cloison version ")
    assert line("version", "--format", "{{.Server.Version}}") == 0
    assert line.out == "9.8.7\n"
    assert line("info") == 0
    assert line.out == "Containers: 3\nTotal Memory: 1GiB\nNames: a b\n"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("frob",), 1, "unknown command: cloison frob"),
        (("image", "frob"), 1, "unknown command: cloison image frob"),
        (("build", "."), 1, "'build' is not in this release yet"),
        (("--frob", "ps"), 125, "unknown flag: --frob"),
        (("-H", "tcp://x", "ps"), 125, "cloison does not support the flag -H yet"),
        (("ps", "--frob"), 125, "unknown flag: --frob"),
        (("run", "--gpus", "all", "x"), 125, "cloison run does not support the flag --gpus yet"),
        (("run",), 1, "'cloison run' requires at least 1 argument"),
        (("ps", "x"), 1, "'cloison ps' accepts no arguments"),
    ],
)
def test_a_wrong_command_line_is_said_on_standard_error(
    line: Line, words: tuple[str, ...], status: int, message: str
) -> None:
    assert line(*words) == status
    assert line.out == ""
    assert line.err.startswith(f"cloison: {message}")
    assert "Traceback" not in line.err


def test_every_verb_has_help_within_the_width(line: Line) -> None:
    from cloison.cli.verbs import GROUP_VERBS, GROUPS, VERBS

    spellings = [(name,) for name in VERBS] + [(group, name) for group, names in GROUPS.items() for name in names]
    assert len(spellings) > 50 and set(GROUP_VERBS) <= {t for names in GROUPS.values() for t in names.values()}
    for words in spellings:
        assert line(*words, "--help") == 0
        assert line.out.startswith("Usage:  cloison "), words
        assert max(map(len, line.out.splitlines())) <= 110, words


def test_help_lists_every_verb_by_group(line: Line) -> None:
    from cloison.cli.verbs import VERBS

    for words in ((), ("--help",), ("help",)):
        assert line(*words) == 0
        shown = {row.split()[0] for row in line.out.splitlines() if row.startswith("  ") and not row.startswith("  -")}
        assert {name for name in VERBS if not name.startswith("_")} <= shown
        assert "_reap" not in line.out
    assert line("help", "run") == 0
    assert line.out.startswith("Usage:  cloison run [OPTIONS] IMAGE [COMMAND] [ARG...]")


def test_no_two_flags_of_a_verb_share_a_name(line: Line) -> None:
    from cloison.cli.dispatch import load_verb
    from cloison.cli.verbs import GROUP_VERBS, VERBS

    for place in [*VERBS.values(), *GROUP_VERBS.values()]:
        verb = load_verb(place)
        names = [name for flag in verb.flags for name in (flag.name, *flag.aliases, flag.short) if name]
        assert len(names) == len(set(names)), verb.name
        assert not set(names) & set(verb.later.split()), verb.name
