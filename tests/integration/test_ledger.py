"""The leak check itself: each kind of leftover, made on purpose, is seen. Without it, "no leak" says nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import Roots, no_leak

Undo = Callable[[], object]


@pytest.fixture
def own() -> Iterator[Roots]:
    roots = Roots()
    yield roots
    roots.remove()


def command(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def leave_mount(roots: Roots) -> Undo:
    target = f"{roots.run_root}/mounted"
    os.mkdir(target)
    command("mount", "-t", "tmpfs", "none", target)
    return lambda: command("umount", target)


def leave_link(roots: Roots) -> Undo:
    bridge, port = roots.settings.bridge, "clt" + roots.settings.instance[-6:]
    command("ip", "link", "add", bridge, "type", "bridge")
    command("ip", "link", "add", port, "type", "veth")
    command("ip", "link", "set", port, "master", bridge)
    return lambda: (command("ip", "link", "del", port), command("ip", "link", "del", bridge))


def leave_element(roots: Roots) -> Undo:
    table = roots.settings.nft_table
    set_of_ports = f"add set ip {table} ports {{ type inet_service; }}"
    command("nft", f"add table ip {table}; {set_of_ports}; add element ip {table} ports {{ 80 }}")
    return lambda: command("nft", "delete", "table", "ip", table)


def leave_cgroup(roots: Roots) -> Undo:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    top = next(mount[1] for mount in mounts if mount[2] in ("cgroup", "cgroup2"))
    parent = os.path.join(top, roots.settings.cgroup_parent)
    os.makedirs(os.path.join(parent, "container"))
    return lambda: (os.rmdir(os.path.join(parent, "container")), os.rmdir(parent))


def leave_process(roots: Roots) -> Undo:
    held = open(f"{roots.run_root}/held", "w")  # the process below keeps it
    process = subprocess.Popen(["sleep", "60"], stdout=held)
    held.close()
    return lambda: (process.kill(), process.wait())


def leave_file(roots: Roots) -> Undo:
    directory = f"{roots.run_root}/containers/0123"
    os.makedirs(directory)
    return lambda: os.rmdir(directory)


@pytest.mark.parametrize(
    ("kind", "leave"),
    [
        ("mounts", leave_mount),
        ("links", leave_link),
        ("elements", leave_element),
        ("cgroups", leave_cgroup),
        ("processes", leave_process),
        ("run files", leave_file),
    ],
)
def test_a_leftover_is_seen(own: Roots, kind: str, leave: Callable[[Roots], Undo]) -> None:
    undo: Undo = bool
    try:
        with pytest.raises(AssertionError, match=f"{kind}: \\+"), no_leak(own, patience_s=0.1):
            undo = leave(own)
    finally:
        undo()


def test_what_was_there_before_is_no_leak(own: Roots) -> None:
    undo = leave_mount(own)
    with no_leak(own, patience_s=0):
        pass
    undo()
