"""Hostile plans against the launcher's reader, in a build with sanitizers: an error in words, never a report."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloison.runtime.plan import VERBS
from launcher_plan import ASAN_LAUNCHER, LAUNCHER, encode, word

LAUNCHER_SOURCES = Path(ASAN_LAUNCHER).parents[1] / "launcher"
MAX_BYTES = 4 << 20
GOOD = encode(
    [
        ("stdio", "null", "pipe", "fd:1"),
        ("new-namespaces", "mnt", "pid"),
        ("root-overlay", "/staging", "", "", "volatile", "/layer1", "/layer2"),
        ("mount", "proc", "proc", "/proc", "nosuid,nodev"),
        ("device", "/dev/null", "c", 1, 3, "666", 0, 0),
        ("user", 0, 0, 10, 20),
        ("capabilities", "ff", "ff", "0", "0"),
        ("seccomp", struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000), 0),
        ("env",),
        ("exec", "true", "true"),
    ]
)


@pytest.fixture(scope="session", autouse=True)
def sanitized() -> None:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc for the build with sanitizers")
    subprocess.run(["make", "-s", "-C", LAUNCHER_SOURCES, "asan"], check=True)


def check(plan: bytes) -> subprocess.CompletedProcess[bytes]:
    """What the reader says: status 0 or 2; anything else is a crash or a sanitizer's report."""
    quick = {"ASAN_OPTIONS": "detect_leaks=0"}  # it allocates by mmap alone, and the search takes most of the time
    result = subprocess.run([ASAN_LAUNCHER, "--check-plan"], input=plan, capture_output=True, timeout=20, env=quick)
    assert result.returncode in (0, 2), result.stderr.decode(errors="replace")
    assert b"Sanitizer" not in result.stderr and b"runtime error" not in result.stderr, result.stderr.decode()
    if result.returncode == 2:
        assert result.stderr.count(b"\n") == 1, result.stderr
    return result


def refused(plan: bytes) -> str:
    result = check(plan)
    assert result.returncode == 2, "the plan was accepted"
    return result.stderr.decode()


def raw(*operations: bytes, count: int | None = None, total: int | None = None, version: int = 1) -> bytes:
    body = b"".join(operations)
    head = struct.pack(
        "<III", version, 16 + len(body) if total is None else total, len(operations) if count is None else count
    )
    return b"clsn" + head + body


def op(*words: bytes, count: int | None = None) -> bytes:
    return struct.pack("<I", len(words) if count is None else count) + b"".join(words)


EXEC = op(word("exec"), word("a"), word("a"))


def test_a_good_plan_is_accepted() -> None:
    assert check(GOOD).returncode == 0


def test_a_plan_cut_at_any_byte_is_refused() -> None:
    for length in range(len(GOOD)):
        refused(GOOD[:length])


def test_a_plan_with_any_byte_changed_is_read_or_refused_cleanly() -> None:
    dice = random.Random(1)
    for position in range(len(GOOD)):
        changed = bytearray(GOOD)
        changed[position] ^= 1 << dice.randrange(8)
        check(bytes(changed))


def test_bytes_after_the_last_operation_are_refused() -> None:
    assert "length" in refused(GOOD + b"\0")
    assert "after" in refused(raw(EXEC, b"\0\0\0\0", count=1))


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, MAX_BYTES, 5])
def test_a_word_longer_than_the_plan_is_refused(length: int) -> None:
    refused(raw(op(struct.pack("<I", length) + b"exec\0")))


@pytest.mark.parametrize("count", [0, 2, 16385, 0xFFFFFFFF, 0x80000000])
def test_a_wrong_word_count_is_refused(count: int) -> None:
    refused(raw(op(word("exec"), word("a"), word("a"), count=count)))


@pytest.mark.parametrize("count", [0, 2, 4096, 4097, 0xFFFFFFFF])
def test_a_wrong_operation_count_is_refused(count: int) -> None:
    refused(raw(EXEC, count=count))


def test_a_plan_beyond_the_limit_is_refused() -> None:
    refused(encode([("exec", "a", b"x" * MAX_BYTES)]))


def test_the_largest_plan_is_accepted() -> None:
    room = MAX_BYTES - len(encode([("env", ""), ("exec", "a", "a")]))
    plan = encode([("env", b"x" * room), ("exec", "a", "a")])
    assert len(plan) == MAX_BYTES
    assert check(plan).returncode == 0


def test_a_plan_of_as_many_empty_words_as_there_is_room_for_is_accepted() -> None:
    assert check(encode([("env", *[""] * 16383)] * 50 + [("exec", "a", "a")])).returncode == 0


def test_a_nul_inside_a_text_is_refused() -> None:
    assert "NUL" in refused(encode([("exec", "a", b"b\0c")]))
    assert "verb" in refused(raw(op(word(b"exec\0"), word("a"), word("a"))))


def test_a_word_without_its_nul_is_refused() -> None:
    broken = bytearray(raw(EXEC))
    broken[-1] = 1
    refused(bytes(broken))


def test_a_verb_that_nobody_knows_is_refused() -> None:
    assert "verb" in refused(encode([("explode",), ("exec", "a", "a")]))


def test_another_version_and_another_magic_are_refused() -> None:
    assert "version" in refused(raw(EXEC, version=2))
    assert "no plan" in refused(b"CLSN" + raw(EXEC)[4:])


@pytest.mark.parametrize(
    "operation",
    [
        ("rlimit", "x", 1, 1),
        ("rlimit", "", 1, 1),
        ("rlimit", "--1", 1, 1),
        ("rlimit", "9" * 19, 1, 1),
        ("user", -1, 0),
        ("user", 4294967295, 0),
        ("user", 4294967296, 0),
        ("user", 0, "0x0"),
        ("umask", "99"),
        ("umask", "77777"),
        ("bounding", "fffffffffffffffff"),
        ("bounding", "FF"),
        ("seccomp", b"", 0),
        ("seccomp", b"1234567", 0),
        ("seccomp", b"x" * 8 * 4097, 0),
        ("client", -2),
        ("client", 1 << 30),
        ("pivot-root", "x"),
        ("hostname",),
    ],
)
def test_an_argument_of_the_wrong_form_is_refused(operation: tuple[str | bytes | int, ...]) -> None:
    refused(encode([operation, ("exec", "a", "a")]))


def test_the_child_does_nothing_after_exec_and_always_has_one() -> None:
    assert "exec" in refused(encode([("exec", "a", "a"), ("umask", "22")]))
    assert "exec" in refused(encode([("umask", "22")]))
    assert check(encode([("exec", "a", "a"), ("keep", 5)])).returncode == 0


@settings(max_examples=80)
@given(st.binary(max_size=400))
def test_random_bytes_are_refused_cleanly(noise: bytes) -> None:
    refused(noise)
    refused(raw(noise, count=1))


words = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b"0", b"-1", b"99999999999", b"/", b"..", b"fd:3", b"pipe", b"ffff", b"777"]),
)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(sorted(VERBS)), st.lists(words, max_size=8)), max_size=12))
def test_any_known_verb_with_any_words_is_read_or_refused_cleanly(operations: list[tuple[str, list[bytes]]]) -> None:
    check(encode([(verb, *arguments) for verb, arguments in operations] + [("exec", "a", "a")]))


@settings(max_examples=80)
@given(st.data())
def test_a_good_plan_with_several_changes_is_read_or_refused_cleanly(data: st.DataObject) -> None:
    plan = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(plan) - 4))
        plan[position : position + 4] = data.draw(st.binary(min_size=4, max_size=4))
    check(bytes(plan))


def test_the_verb_table_is_pythons() -> None:
    lines = subprocess.run([LAUNCHER, "--operations"], capture_output=True, text=True, check=True).stdout.splitlines()
    table = {verb: (int(count), side) for verb, count, side in (line.split() for line in lines)}
    assert table == {name: (verb.count, verb.side) for name, verb in VERBS.items()}


def test_every_verb_is_in_the_document() -> None:
    document = (LAUNCHER_SOURCES.parent / "docs" / "launch-plan.md").read_text()
    assert [verb for verb in VERBS if f"`{verb}`" not in document] == []


def test_a_plan_that_is_refused_ends_the_launcher_before_anything_is_done(tmp_path: Path) -> None:
    plan = os.memfd_create("plan")
    os.write(plan, encode([("log", str(tmp_path / "log"), 0, 0), ("umask", "x"), ("exec", "a", "a")]))
    result = subprocess.run([LAUNCHER, str(plan), "1"], pass_fds=[plan], capture_output=True, timeout=20)
    os.close(plan)
    assert result.returncode == 2
    assert b"operation 1" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [[], ["3"], ["2", "1"], ["3", "0"], ["x", "1"], ["3", "1", "1"], ["3", "99999999"]]
)
def test_wrong_command_lines_are_refused(arguments: list[str]) -> None:
    assert subprocess.run([ASAN_LAUNCHER, *arguments], capture_output=True, timeout=20).returncode == 2
