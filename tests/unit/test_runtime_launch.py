"""Spawning without leaking: descriptor rows, the sealed copy, and every way to fail before the launcher runs."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloison.errors import CloisonError, InvalidArgument, NotFound
from cloison.runtime.launch import _targets, launch
from cloison.runtime.launcher import Launcher
from cloison.runtime.plan import MAX_BYTES, Op, op

BUSYBOX = "/bin/busybox"  # a static program that ends at once when it is called cloison-launcher
needs_busybox = pytest.mark.skipif(not os.path.exists(BUSYBOX), reason="needs Debian's package busybox-static")


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(3, 40))
def test_a_row_never_overwrites_a_descriptor_that_is_still_to_be_copied(sources: list[int], image: int) -> None:
    targets = _targets(sources, avoid=image)
    row = list(targets.values())
    assert list(targets) == list(dict.fromkeys(sources))
    assert row == list(range(row[0], row[0] + len(row)))
    assert row[0] >= 3
    assert not set(row) & {*sources, image}


def test_the_row_is_as_low_as_it_can_be() -> None:
    assert _targets([30, 0, 1], avoid=31) == {30: 3, 0: 4, 1: 5}
    assert _targets([5, 4], avoid=9) == {5: 6, 4: 7}
    assert _targets([3, 6], avoid=4) == {3: 7, 6: 8}


@needs_busybox
def test_the_copy_of_the_launcher_is_sealed_and_runs() -> None:
    copy = Launcher(BUSYBOX)
    fd = copy.descriptor()
    seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    wanted = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    assert seals & wanted == wanted
    with pytest.raises(PermissionError):
        os.write(fd, b"x")
    with pytest.raises(OSError):
        os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_TRUNC)
    assert os.pread(fd, 1 << 30, 0) == Path(BUSYBOX).read_bytes()
    pid = os.posix_spawn(f"/proc/self/fd/{fd}", ["true"], {})
    assert os.waitpid(pid, 0)[1] == 0
    copy.close()


@needs_busybox
def test_threads_share_one_copy() -> None:
    copy = Launcher(BUSYBOX)
    before = open_descriptors()
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.append(copy.descriptor())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 16
    assert len(set(seen)) == 1
    copy.close()
    assert open_descriptors() == before


def test_a_missing_launcher_says_how_to_build_it() -> None:
    with pytest.raises(NotFound, match="launcher is missing: /nowhere/launcher") as caught:
        Launcher("/nowhere/launcher").descriptor()
    assert "make -C launcher" in caught.value.hint


@needs_busybox
def test_a_launcher_that_says_nothing_is_a_closed_session_without_zombie_or_descriptor() -> None:
    copy = Launcher(BUSYBOX)
    copy.descriptor()
    before = open_descriptors()
    session = launch(
        (op("stdio", "fd:0", "fd:1", "fd:2"), op("join-namespace", "/proc/self/ns/net", "net")), launcher=copy
    )
    pid = session._launcher
    assert session.receive(10).kind == "closed"
    session.close()
    assert open_descriptors() == before
    assert not os.path.exists(f"/proc/{pid}")
    copy.close()


@needs_busybox
@pytest.mark.parametrize(
    ("ops", "kind", "message"),
    [
        ((op("join-namespace", "/proc/self/ns/net", "net"), op("cgroup-fd", "/no/where")), NotFound, "/no/where"),
        ((op("join-pid-namespace", 999),), InvalidArgument, "not open"),
        ((op("env", "A=" + "x" * MAX_BYTES),), InvalidArgument, "bytes"),
        ((op("env", "A=\0"),), InvalidArgument, "NUL"),
    ],
    ids=["missing-path", "closed-descriptor", "too-large", "nul"],
)
def test_a_launch_that_fails_before_the_launcher_leaves_no_descriptor_open(
    ops: tuple[Op, ...], kind: type[CloisonError], message: str
) -> None:
    copy = Launcher(BUSYBOX)
    copy.descriptor()
    before = open_descriptors()
    with pytest.raises(kind, match=message):
        launch(ops, launcher=copy)
    assert open_descriptors() == before
    copy.close()


@needs_busybox
def test_a_program_that_reaps_all_its_children_itself_does_no_harm() -> None:
    copy = Launcher(BUSYBOX)
    session = launch((op("detach"),), launcher=copy)
    os.waitpid(session._launcher, 0)
    session.close()
    copy.close()
