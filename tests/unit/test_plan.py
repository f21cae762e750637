"""The plan as bytes and as text."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloison.errors import Internal, InvalidArgument
from cloison.runtime import plan
from cloison.runtime.plan import Op, check, descriptors, encode, op, render


def decode(data: bytes) -> list[tuple[bytes, ...]]:
    """An independent reader of the format in docs/launch-plan.md, strict about every length."""
    magic, version, total, count = struct.unpack_from("<4sIII", data)
    assert (magic, version, total) == (b"clsn", 1, len(data))
    ops, at = [], 16
    for _ in range(count):
        (words,) = struct.unpack_from("<I", data, at)
        at += 4
        found = []
        for _ in range(words):
            (length,) = struct.unpack_from("<I", data, at)
            word, nul = data[at + 4 : at + 4 + length], data[at + 4 + length : at + 5 + length]
            assert nul == b"\0"
            assert len(word) == length
            found.append(word)
            at += 5 + length
        ops.append(tuple(found))
    assert at == len(data)
    return ops


def test_an_encoded_plan_reads_back_as_its_words() -> None:
    ops = (
        op("hostname", "web"),
        op("user", 1000, 100, 5),
        op("seccomp", b"\0" * 16, 0),
        op("exec", "a", "a", "ü\udcff"),
    )
    assert decode(encode(ops)) == [
        (b"hostname", b"web"),
        (b"user", b"1000", b"100", b"5"),
        (b"seccomp", b"\0" * 16, b"0"),
        (b"exec", b"a", b"a", "ü".encode() + b"\xff"),
    ]


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40), max_size=30))
def test_any_text_without_nul_survives_the_encoding(words: list[str]) -> None:
    assert decode(encode((Op(verb="env", words=tuple(words)),))) == [(b"env", *(w.encode() for w in words))]


def test_a_nul_in_a_text_word_is_refused_and_named() -> None:
    with pytest.raises(InvalidArgument, match=r"'env' holds a NUL byte: 'A=b\\x00c'"):
        encode((op("env", "A=b\0c"),))


def test_a_plan_that_the_launcher_would_refuse_for_its_size_is_refused_here() -> None:
    with pytest.raises(InvalidArgument, match="bytes"):
        encode((op("env", "A=" + "x" * plan.MAX_BYTES),))
    with pytest.raises(InvalidArgument, match="operations"):
        encode((op("pivot-root"),) * (plan.MAX_OPERATIONS + 1))
    with pytest.raises(InvalidArgument, match="words"):
        encode((op("env", *(("A=b",) * plan.MAX_WORDS)),))


@pytest.mark.parametrize(
    "wrong",
    [Op(verb="explode"), op("hostname"), op("hostname", "a", "b"), op("user", 0), op("exec", "sh"), op("detach", "x")],
    ids=lambda each: each.verb + str(len(each.words)),
)
def test_unknown_verbs_and_wrong_counts_are_our_own_mistake(wrong: Op) -> None:
    with pytest.raises(Internal, match="operation 1"):
        check((op("pivot-root"), wrong))


def test_descriptors_are_found_where_the_table_says_and_nowhere_else() -> None:
    ops = (
        op("stdio", "fd:0", "pipe", "fd:9"),
        op("join-namespace", "/proc/7/ns/net", "net"),
        op("relay", -1, 5, -1),
        op("hostname", "12"),
        op("env", "fd:3", "/x"),
        op("client", 4),
    )
    assert descriptors(ops) == {"fd:0": "0", "fd:9": "9", "/proc/7/ns/net": "/proc/7/ns/net", "5": "5", "4": "4"}


def test_encoding_puts_the_launchers_numbers_in_and_leaves_other_words_alone() -> None:
    ops = (op("stdio", "fd:5", "null", "fd:5"), op("relay", -1, 5, -1), op("env", "5", "fd:5"))
    assert decode(encode(ops, numbers={"fd:5": 21, "5": 22})) == [
        (b"stdio", b"fd:21", b"null", b"fd:21"),
        (b"relay", b"-1", b"22", b"-1"),
        (b"env", b"5", b"fd:5"),
    ]


def test_a_rendered_plan_has_one_quoted_line_an_operation() -> None:
    ops = (op("env", "A=b c", "Q='", "", "N=1\n2"), op("seccomp", b"x" * 800, 0), op("pivot-root"))
    lines = render(ops).splitlines()
    assert lines == ["env 'A=b c' 'Q='\"'\"'' '' 'N=1\\n2'", "seccomp <100 instructions> 0", "pivot-root"]


def test_sides_of_all_verbs_are_known() -> None:
    assert {verb.side for verb in plan.VERBS.values()} == set(plan.SIDES)
