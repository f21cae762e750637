"""Verbs on containers that exist, images, help: what each asks of the engine, prints and exits with."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli_fakes import ID, Line, image_of, line, record_of, stdin
from cloison.model.container import ContainerState

__all__ = ["line", "stdin"]  # the fixtures


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
    assert line.out.splitlines()[0] == "Loaded image: debian:bookworm"  # docker's -q hides its progress alone


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


def test_a_full_disk_under_standard_output_is_said(line: Line) -> None:
    saved, full = os.dup(1), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    try:
        status = line("ps")
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(full)
    assert status == 1
    assert line.err == "cloison: cannot write to standard output: no space left on device\n"


def test_closed_standard_descriptors_are_never_given_to_a_file_of_ours() -> None:
    code = "import os; from cloison.__main__ import _fill_standard_descriptors as fill; fill(); "
    code += "os._exit([os.readlink(f'/proc/self/fd/{fd}') for fd in (0, 1, 2)] != ['/dev/null'] * 3)"
    actions = [(os.POSIX_SPAWN_CLOSE, fd) for fd in (0, 1, 2)]
    path = os.pathsep.join(sys.path)
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", code], {"PYTHONPATH": path}, file_actions=actions)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
