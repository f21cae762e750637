"""From the launcher's six words to a line that teaches; and the exit file."""

from __future__ import annotations

import errno
import os

import pytest

from cloison.errors import CommandNotFound, CommandNotInvocable, LaunchFailed
from cloison.runtime.exits import parse_exit
from cloison.runtime.failure import _TRIED, launch_failure
from cloison.runtime.plan import VERBS, Op, op

PLAN = (
    op("mount", "tmpfs", "tmpfs", "/dev", "nosuid", "size=1m"),
    op("exec", "/app", "/app", "-x"),
    op("cwd", "/nope"),
)


def failure(*words: str, plan: tuple[Op, ...] = PLAN) -> LaunchFailed:
    return launch_failure(words, plan=plan)


@pytest.mark.parametrize(
    ("reason", "number", "kind", "line"),
    [
        ("missing", errno.ENOENT, CommandNotFound, 'exec: "/app": no such file or directory'),
        (
            "interpreter:/bin/bash", errno.ENOENT, CommandNotFound,
            "exec: \"/app\": its interpreter '/bin/bash' does not exist (first line, '#!')",
        ),
        (
            "loader:/lib64/ld-linux-x86-64.so.2", errno.ENOENT, CommandNotFound,
            "exec: \"/app\": its ELF loader '/lib64/ld-linux-x86-64.so.2' does not exist",
        ),
        (
            "architecture", errno.ENOEXEC, CommandNotInvocable,
            'exec: "/app": exec format error: built for another architecture',
        ),
        ("permission", errno.EACCES, CommandNotInvocable, 'exec: "/app": permission denied'),
        ("directory", errno.EACCES, CommandNotInvocable, 'exec: "/app": is a directory'),
        (
            "format", errno.ENOEXEC, CommandNotInvocable,
            "exec: \"/app\": exec format error: neither an ELF program nor a script with '#!'",
        ),
        ("", errno.E2BIG, CommandNotInvocable, 'exec: "/app": argument list too long (E2BIG)'),
    ],
)  # fmt: skip
def test_each_reason_why_a_command_cannot_start_has_its_own_line_and_exit_class(
    reason: str, number: int, kind: type[LaunchFailed], line: str
) -> None:
    error = failure("1", "exec", "execve", str(number), "/app", reason)
    assert type(error) is kind
    assert str(error) == line
    assert error.errno == number
    assert error.operation == "exec /app /app -x"
    assert bool(error.hint) == bool(reason)


def test_windows_line_endings_are_recognised_in_the_interpreters_name() -> None:
    assert "dos2unix" in failure("1", "exec", "execve", "2", "/app", "interpreter:/bin/sh\r").hint


def test_a_failed_operation_is_told_with_its_arguments_call_path_and_errno() -> None:
    error = failure("0", "mount", "fsconfig", str(errno.EINVAL), "size", "")
    assert str(error) == "cannot mount tmpfs on /dev: fsconfig size: invalid argument (EINVAL)"
    assert error.operation == "mount tmpfs tmpfs /dev nosuid size=1m"
    assert type(error) is LaunchFailed


def test_a_process_that_died_without_a_word_is_told_with_the_operation_it_was_at() -> None:
    error = failure("0", "mount", "child", "0", "", "killed:9")
    assert str(error).startswith("cannot mount tmpfs on /dev: the container's first process was killed by signal 9")


def test_a_failure_of_the_launcher_itself_blames_no_operation() -> None:
    error = failure("-1", "launch", "clone3", "1", "", "")
    assert str(error) == "the launcher failed: clone3: operation not permitted (EPERM)"


def test_a_symlink_in_the_way_is_explained() -> None:
    assert "symlink" in failure("0", "mount", "openat2", str(errno.ELOOP), "/dev", "").hint


def test_a_missing_working_directory_names_it() -> None:
    error = failure("2", "cwd", "chdir", str(errno.ENOENT), "/nope", "")
    assert str(error) == "cannot use working directory /nope: chdir /nope: no such file or directory (ENOENT)"
    assert "--workdir" in error.hint


@pytest.mark.parametrize(
    "words", [(), ("",), ("9", "mount", "x", "1"), ("x", "strange", "", "", "", ""), ("0", "exec")]
)
def test_words_that_make_no_sense_still_make_an_error(words: tuple[str, ...]) -> None:
    assert str(launch_failure(words, plan=PLAN))
    assert str(launch_failure(words))


@pytest.mark.parametrize("verb", sorted(_TRIED))
def test_the_texts_belong_to_verbs_and_use_arguments_that_they_have(verb: str) -> None:
    count = VERBS[verb].count
    words = tuple(f"<{index}>" for index in range(count if count >= 0 else ~count))
    assert "{" not in str(failure("0", verb, "call", "1", "", "", plan=(Op(verb=verb, words=words),)))


def test_an_exit_file_is_read_whole() -> None:
    text = "status 768\nstarted_ns 1\nfinished_ns 2\nuser_us 3\nsystem_us 4\nmax_rss_kib 5\noom 0\nmemory_peak 99\n"
    ended = parse_exit(text)
    assert (ended.exit_code, ended.signal, ended.stats) == (3, 0, {"oom": 0, "memory_peak": 99})
    assert (ended.started_ns, ended.finished_ns, ended.user_us, ended.system_us, ended.max_rss_kib) == (1, 2, 3, 4, 5)


@pytest.mark.parametrize("signal", [1, 9, 15])
def test_death_by_a_signal_is_128_and_its_number_with_or_without_a_core(signal: int) -> None:
    for core in (0, 0x80):
        ended = parse_exit(f"status {signal | core}\n")
        assert (ended.exit_code, ended.signal) == (128 + signal, signal)


@pytest.mark.parametrize("text", ["", "oom 1\n", "status\n", "status x\n", "sta"])
def test_half_an_exit_file_is_no_exit(text: str) -> None:
    with pytest.raises(ValueError):
        parse_exit(text)


def test_statuses_agree_with_the_kernels() -> None:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 42"], {})
    status = os.waitpid(pid, 0)[1]
    assert parse_exit(f"status {status}").exit_code == 42
