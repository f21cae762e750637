"""Why a command cannot start: the launcher tells the kernel's few errors apart, and names operation, call and path."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher_plan import World, launch, made_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with made_world(tmp_path) as world:
        yield world


def script(world: World, name: str, content: bytes, mode: int = 0o755) -> str:
    path = os.path.join(world.root, "bin", name)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)
    return f"/bin/{name}"


def elf(*, machine: int = 62, loader: bytes = b"", bits: int = 64) -> bytes:
    """The least file that the kernel takes for a program of this machine."""
    if bits == 32:
        head = (
            b"\x7fELF\x01\x01\x01"
            + bytes(9)
            + struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0)
        )
        return head + struct.pack("<IIIIIIII", 3, 84, 0, 0, len(loader) + 1, 0, 4, 1) + loader + b"\0"
    head = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    return head + struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(loader) + 1, 0, 1) + loader + b"\0"


def own_machine() -> int:
    return {"x86_64": 62, "aarch64": 183}[os.uname().machine]


def test_the_reasons_why_a_command_cannot_start_are_told_apart(world: World) -> None:
    script(world, "no-interpreter", b"#!/usr/bin/missing -x\n")
    script(world, "nested", b"#!/bin/no-loader\n")
    script(world, "no-loader", elf(machine=own_machine(), loader=b"/lib/ld-missing.so.2"))
    script(world, "foreign", elf(machine=8, loader=b"/lib/ld.so"))
    script(world, "text", b"hello\n")
    script(world, "empty", b"")
    script(world, "plain", b"#!/bin/sh\n", 0o644)
    os.mkdir(os.path.join(world.root, "bin", "directory"))
    os.symlink("/nowhere", os.path.join(world.root, "bin", "dangling"))
    expected = {
        "absent": "missing",
        "/bin/absent": "missing",
        "/bin/sh/x": "missing",
        "/bin/dangling": "missing",
        "/bin/no-interpreter": "interpreter:/usr/bin/missing",
        "no-interpreter": "interpreter:/usr/bin/missing",
        "/bin/nested": "loader:/lib/ld-missing.so.2",
        "/bin/no-loader": "loader:/lib/ld-missing.so.2",
        "/bin/foreign": "architecture",
        "/bin/text": "format",
        "/bin/empty": "format",
        "/bin/plain": "permission",
        "plain": "permission",
        "/bin/directory": "directory",
        "/bin": "directory",
        "": "missing",
    }
    found = {}
    for command in expected:
        fault = world.fails(command)
        assert (fault.verb, fault.call) == ("exec", "execve")
        found[command] = fault.reason
    assert found == expected


def test_the_failure_names_operation_call_errno_and_path(world: World) -> None:
    plan = world.plan("true", extra=[("bind", "/does/not/exist", "/x", 0, "", "")])
    started = launch(plan)
    fault = started.fault()
    assert (fault.verb, fault.call, fault.errno, fault.path) == ("bind", "open", 2, "/does/not/exist")
    assert plan[fault.index - 1][0] == "bind"  # the test's driver puts `client` before the plan
    assert started.close() == 1


def test_a_file_without_a_slash_is_searched_inside_in_the_environments_path(world: World) -> None:
    os.mkdir(os.path.join(world.root, "first"))
    os.symlink("../bin/echo", os.path.join(world.root, "first", "where"))
    _, output = world.run("where", "found", env=["PATH=:/nowhere:/first:/bin", "A=1"])
    assert output == "found\n" or "applet not found" in output
    assert world.fails("sh", env=["PATH=/first"]).reason == "missing"


def test_a_failed_clone_is_put_down_to_its_operation(world: World, tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)  # no cgroup
    plan: list[tuple[str | int, ...]] = [("cgroup-fd", "{0}"), *world.plan("true")]
    started = launch(plan, fds=[directory])
    fault = started.fault()
    assert (fault.verb, fault.call, fault.errno) == ("cgroup-fd", "clone3", 9)
    assert started.close() == 1
    os.close(directory)
