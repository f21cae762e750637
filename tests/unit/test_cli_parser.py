"""Flags parse as docker's do."""

from __future__ import annotations

import pytest

from cloison.cli.parser import Flag, HelpWanted, UsageError, Verb, WordCountError, parse

FLAGS = (
    Flag("-i, --interactive"),
    Flag("-t, --tty"),
    Flag("-d, --detach"),
    Flag("-p, --publish", "list"),
    Flag("--name", "string"),
    Flag("--network, --net", "network"),
    Flag("-n, --last", "int"),
    Flag("-m, --memory", "bytes"),
    Flag("--cpus", "decimal"),
)
RUN = Verb("run", lambda _call: 0, summary="", flags=FLAGS, interspersed=False, later="gpus health-cmd", usage="IMAGE")
PS = Verb("ps", lambda _call: 0, summary="", flags=FLAGS, usage="[OPTIONS]")


def test_short_switches_combine() -> None:
    assert parse(RUN, ["-it", "img"]) == ({"interactive": True, "tty": True}, ["img"])


@pytest.mark.parametrize(
    "words", [["-p8080:80"], ["-p", "8080:80"], ["-p=8080:80"], ["--publish=8080:80"], ["-itp8080:80"]]
)
def test_a_value_may_stand_behind_its_flag_in_every_way(words: list[str]) -> None:
    values, rest = parse(RUN, [*words, "img"])
    assert (values["publish"], rest) == (["8080:80"], ["img"])


def test_the_first_word_ends_the_flags_of_a_verb_that_runs_a_command() -> None:
    assert parse(RUN, ["-t", "img", "ls", "-i", "--name", "x"]) == ({"tty": True}, ["img", "ls", "-i", "--name", "x"])


def test_flags_may_follow_words_elsewhere() -> None:
    assert parse(PS, ["a", "-t", "b"]) == ({"tty": True}, ["a", "b"])


def test_two_dashes_end_the_flags() -> None:
    assert parse(PS, ["-t", "--", "-i", "--name"]) == ({"tty": True}, ["-i", "--name"])


def test_one_dash_is_a_word() -> None:
    assert parse(PS, ["-"]) == ({}, ["-"])


@pytest.mark.parametrize(
    ("word", "value"), [("--tty=false", False), ("--tty=0", False), ("--tty=T", True), ("-t=false", False)]
)
def test_a_switch_takes_a_value_behind_an_equals_sign(word: str, value: bool) -> None:
    assert parse(RUN, [word, "img"])[0] == {"tty": value}


def test_a_switch_never_takes_the_next_word() -> None:
    assert parse(RUN, ["--tty", "false"]) == ({"tty": True}, ["false"])


def test_a_list_collects_and_a_text_keeps_the_last() -> None:
    values, _ = parse(RUN, ["-p", "1", "--publish", "2", "--name", "a", "--name=b", "img"])
    assert values == {"publish": ["1", "2"], "name": "b"}


def test_an_alias_is_the_same_flag() -> None:
    assert parse(RUN, ["--net", "host", "img"])[0] == {"network": ["host"]}


def test_a_value_may_be_empty_or_begin_with_a_dash() -> None:
    assert parse(RUN, ["--name", "-x", "img"])[0] == {"name": "-x"}
    assert parse(RUN, ["--name=", "img"])[0] == {"name": ""}


def test_numbers_are_parsed_in_their_unit() -> None:
    assert parse(RUN, ["-n", "-1", "-m64m", "--cpus=.5", "img"])[0] == {
        "last": -1, "memory": 64 << 20, "cpus": 500_000_000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--x"], "unknown flag: --x"),
        (["--x=1"], "unknown flag: --x"),
        (["-x"], "unknown shorthand flag: 'x' in -x"),
        (["-itx"], "unknown shorthand flag: 'x' in -itx"),
        (["--name"], "flag needs an argument: --name"),
        (["-tp"], "flag needs an argument: 'p' in -tp"),
        (["--=x"], "bad flag syntax: --=x"),
        (["--tty=maybe"], 'invalid argument "maybe" for "-t, --tty" flag: parsing "maybe": invalid syntax'),
        (["-n", "many"], 'invalid argument "many" for "-n, --last" flag: parsing "many": invalid syntax'),
        (["-m", "lots"], 'invalid argument "lots" for "-m, --memory" flag: invalid size: \'lots\''),
        (["--gpus", "all"], "cloison run does not support the flag --gpus yet"),
    ],
)
def test_a_bad_flag_is_named_and_points_to_the_help(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(RUN, [*words])
    assert str(caught.value) == f"{message}\nSee 'cloison run --help'."


@pytest.mark.parametrize("words", [["--help"], ["-t", "--help", "img"], ["-h"]])
def test_help_is_wanted_before_the_first_word(words: list[str]) -> None:
    with pytest.raises(HelpWanted):
        parse(RUN, words)


def test_help_behind_the_first_word_belongs_to_the_command() -> None:
    assert parse(RUN, ["img", "ls", "--help"])[1] == ["img", "ls", "--help"]


@pytest.mark.parametrize(
    ("least", "most", "words", "message"),
    [
        (1, -1, [], "requires at least 1 argument"),
        (2, -1, ["a"], "requires at least 2 arguments"),
        (1, 1, ["a", "b"], "requires exactly 1 argument"),
        (2, 2, ["a"], "requires exactly 2 arguments"),
        (0, 0, ["a"], "accepts no arguments"),
        (0, 1, ["a", "b"], "requires at most 1 argument"),
    ],
)
def test_the_number_of_words_is_checked_in_dockers_words(least: int, most: int, words: list[str], message: str) -> None:
    verb = Verb("rm", lambda _call: 0, summary="", usage="X", least=least, most=most)
    with pytest.raises(WordCountError, match=message):
        parse(verb, words)
