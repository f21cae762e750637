"""The OCI runtime's command line: runc's grammar, and documents that are no JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloison.errors import InvalidArgument, NotFound
from cloison.oci_runtime.bundle import read_bundle
from cloison.oci_runtime.options import HelpWanted, Verb, check_words, parse

VERB = Verb(
    "try", lambda call: 0, usage="ID", options={"bundle": "text", "force": "switch", "env": "list"},
    short={"b": "bundle", "f": "force", "e": "env"},
)  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ["--bundle", "/b", "--force", "id"], ["--bundle=/b", "--force=true", "id"], ["-b", "/b", "-f", "id"],
        ["-bundle", "/b", "id", "-force"], ["id", "--bundle", "/b", "--force"],
        ["--force", "--bundle", "/b", "--", "id"],
    ],
)  # fmt: skip
def test_options_may_be_spelled_and_placed_as_callers_do(words: list[str]) -> None:
    assert parse(VERB, words) == ({"bundle": "/b", "force": True}, ["id"])


def test_lists_are_kept_in_order_and_a_dash_is_a_word() -> None:
    assert parse(VERB, ["-e", "A=1", "--env=B=2", "-"]) == ({"env": ["A=1", "B=2"]}, ["-"])


def test_the_words_of_a_command_are_not_options() -> None:
    verb = Verb("exec", lambda call: 0, usage="", options={"env": "list"}, interspersed=False, most=-1)
    assert parse(verb, ["--env", "A=1", "id", "ls", "--env", "-l"]) == ({"env": ["A=1"]}, ["id", "ls", "--env", "-l"])


@pytest.mark.parametrize(
    ("words", "text"),
    [(["--nope"], "not defined: --nope"), (["--bundle"], "needs an argument"), (["--force=maybe"], "boolean")],
)
def test_wrong_options_are_named(words: list[str], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        parse(VERB, words)


def test_help_is_asked_for_anywhere() -> None:
    with pytest.raises(HelpWanted):
        parse(VERB, ["id", "--help"])


@pytest.mark.parametrize("words", [[], ["a", "b"]])
def test_words_are_counted(words: list[str]) -> None:
    with pytest.raises(InvalidArgument, match="requires exactly 1 argument"):
        check_words(VERB, words)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"nul", b"\xff\xfe", b'{"ociVersion": NaN}', b"[" * 100_000, b'{"a":' * 50_000,
        b'{"ociVersion": ' + b"9" * 5000 + b"}", b'"' + b"x" * (10 << 20) + b'"',
    ],
)  # fmt: skip
def test_what_is_no_configuration_is_one_line(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(InvalidArgument) as caught:
        read_bundle(str(tmp_path))
    assert "config.json" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_bundle_without_configuration_or_root_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        read_bundle(str(tmp_path))
    (tmp_path / "config.json").write_text('{"ociVersion": "1.0.0", "root": {"path": "nowhere"}}')
    with pytest.raises(NotFound, match=r"root.path .*/nowhere: no such file"):
        read_bundle(str(tmp_path))
