"""The tables of system calls against the kernel's headers, where they are installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloison.linux.syscalls import ARCHITECTURES, numbers

HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_number_and_no_name_is_there_twice(architecture: str) -> None:
    table = numbers(architecture)
    assert len(set(table.values())) == len(table)
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in table)


def test_new_calls_have_one_number_everywhere() -> None:
    x86, arm = numbers("x86_64"), numbers("aarch64")
    assert {n: v for n, v in x86.items() if v >= 424} == {n: v for n, v in arm.items() if v >= 424}
    assert [x86[name] for name in ("clone3", "openat2", "cachestat", "mseal", "file_setattr")] == [
        435,
        437,
        451,
        462,
        469,
    ]


def test_well_known_numbers_are_right() -> None:
    assert [numbers("x86_64")[name] for name in ("read", "clone", "execve", "exit_group", "openat")] == [
        0,
        56,
        59,
        231,
        257,
    ]
    assert [numbers("aarch64")[name] for name in ("read", "clone", "execve", "exit_group", "openat")] == [
        63,
        220,
        221,
        94,
        56,
    ]


@pytest.mark.skipif(not HEADER.exists(), reason="needs linux-libc-dev on x86_64")
def test_every_number_of_the_header_is_in_the_table() -> None:
    found = dict(re.findall(r"#define __NR_(\w+)\s+(\d+)", HEADER.read_text()))
    table = numbers("x86_64")
    assert len(found) > 350
    assert {name: int(number) for name, number in found.items() if table.get(name) != int(number)} == {}
