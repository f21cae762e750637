"""Control groups of this machine's kernel, whichever versions it has: the limits bite, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloison.errors import CloisonError, Conflict
from cloison.linux import cgroup_processes, cgroups, device_filter, proc
from cloison.linux.libc import BPF, address_of, syscall
from cloison.model.container import Resources
from cloison.oci.runtime import DeviceRule
from harness import until

pytestmark = pytest.mark.guest

PARENT = f"cloison-test-{os.getpid()}"
PATH = f"{PARENT}/group"
LAYOUT = cgroups.read_layout()
NULL_ONLY = (DeviceRule(allow=False), DeviceRule(allow=True, type="c", major=1, minor=3))

Starter = Callable[..., "subprocess.Popen[bytes]"]


def join(placement: cgroups.Placement) -> None:
    """Move the calling process in; on version 2 the launcher is born inside instead."""
    for directory in (*placement.join, placement.into):
        if directory:
            with open(f"{directory}/cgroup.procs", "w") as file:
                file.write(str(os.getpid()))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    left = [
        f"{root}/{PARENT}/{name}"
        for root in LAYOUT.all_roots()
        for name in (os.listdir(f"{root}/{PARENT}") if os.path.isdir(f"{root}/{PARENT}") else ())
        if os.path.isdir(f"{root}/{PARENT}/{name}")
    ]
    cgroups.remove(LAYOUT, PARENT)
    assert left == [], "the test left groups behind"
    assert not [root for root in LAYOUT.all_roots() if os.path.exists(f"{root}/{PARENT}")]


@pytest.fixture
def start() -> Iterator[Starter]:
    """``start(placement, argv…)``: a child that is in the group before it executes."""
    children: list[subprocess.Popen[bytes]] = []

    def run(placement: cgroups.Placement, *argv: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=lambda: join(placement)
        )
        children.append(child)
        return child

    yield run
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture
def make() -> Iterator[Callable[..., cgroups.Placement]]:
    def create(rules: tuple[DeviceRule, ...] = (), **limits: object) -> cgroups.Placement:
        return cgroups.create(LAYOUT, PATH, resources=Resources(**limits), device_rules=rules)

    yield create
    cgroups.remove(LAYOUT, PATH)


Make = Callable[..., cgroups.Placement]


def test_more_memory_than_the_limit_kills_and_is_counted(make: Make, start: Starter) -> None:
    placement = make(memory_bytes=48 << 20)
    child = start(placement, sys.executable, "-c", "x = bytearray(200 << 20)")
    assert child.wait(30) == -signal.SIGKILL
    assert cgroups.oom_kills(LAYOUT, PATH) >= 1
    assert 40 << 20 <= cgroups.memory_peak(LAYOUT, PATH) <= 48 << 20
    figures = {key: (file, field) for key, file, field in placement.stats}
    assert set(figures) == {"oom", "memory_peak"}


def test_less_memory_than_the_limit_kills_nobody(make: Make, start: Starter) -> None:
    child = start(make(memory_bytes=64 << 20), sys.executable, "-c", "x = bytearray(20 << 20)")
    assert child.wait(30) == 0
    assert cgroups.oom_kills(LAYOUT, PATH) == 0
    assert cgroups.memory_peak(LAYOUT, PATH) >= 20 << 20


def test_processes_beyond_the_limit_are_not_born(make: Make, start: Starter) -> None:
    script = (
        "import os\nborn = 0\n"
        "for _ in range(20):\n"
        "    try:\n        pid = os.fork()\n    except BlockingIOError:\n        break\n"
        "    if not pid:\n        import time; time.sleep(30)\n    born += 1\n"
        "print(born, flush=True)\nos.kill(0, 9)\n"
    )
    placement = make(pids_limit=6)
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: (os.setsid(), join(placement)),
    )
    assert child.communicate(timeout=30)[0] == b"5\n"


def test_half_a_processor_is_half_a_processor(make: Make, start: Starter) -> None:
    placement = make(cpu_quota_us=25_000, cpu_period_us=50_000)
    script = (
        "import time\nbegun, spent = time.monotonic(), time.process_time()\n"
        "while time.monotonic() < begun + 1.5: pass\n"
        "print((time.process_time() - spent) / (time.monotonic() - begun))"
    )
    child = start(placement, sys.executable, "-S", "-c", script)
    share = float(child.communicate(timeout=30)[0])
    assert 0 < share < 0.65  # the machine may have less to give, never more


def test_devices_outside_the_list_cannot_be_opened(make: Make, start: Starter) -> None:
    script = "for f in /dev/null /dev/zero; do if true <$f; then echo yes; else echo no; fi; done 2>/dev/null"
    child = start(make(NULL_ONLY), "sh", "-c", script)
    assert child.communicate(timeout=10)[0] == b"yes\nno\n"


@pytest.mark.skipif(not LAYOUT.unified, reason="needs a cgroup version 2 tree")
def test_the_version_2_device_filter_is_enforced_by_the_kernel(start: Starter) -> None:
    directory = f"{LAYOUT.unified}/{PATH}"
    os.makedirs(directory)
    try:
        placement = cgroups.Placement(into=directory)
        script = (
            "for f in /dev/null /dev/zero /dev/full; do if true <$f; then echo yes; else echo no; fi; done 2>/dev/null"
        )
        free = start(placement, "sh", "-c", script).communicate(timeout=10)[0]
        assert free == b"yes\nyes\nyes\n"
        device_filter.attach(directory, (*NULL_ONLY, DeviceRule(allow=True, type="c", major=1, minor=7, access="w")))
        bound = start(placement, "sh", "-c", script).communicate(timeout=10)[0]
        assert bound == b"yes\nno\nno\n"  # full is for writing alone
        writing = start(placement, "sh", "-c", "if true >/dev/full; then echo yes; fi").communicate(timeout=10)[0]
        assert writing == b"yes\n"
    finally:
        cgroups.remove(LAYOUT, PATH)


@pytest.mark.skipif(not LAYOUT.unified, reason="needs a cgroup version 2 tree")
def test_a_device_filter_goes_with_its_group() -> None:
    made: set[int] = set()  # by us, or by somebody else who removes his as well
    for _cycle in range(20):
        before = programs()
        os.makedirs(f"{LAYOUT.unified}/{PATH}")
        device_filter.attach(f"{LAYOUT.unified}/{PATH}", NULL_ONLY)
        made |= programs() - before
        cgroups.remove(LAYOUT, PATH)
    assert len(made) >= 20
    deadline = time.monotonic() + 30
    while programs() & made and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not programs() & made


def programs() -> set[int]:
    """The numbers of all BPF programs that the kernel holds (bpf(2), BPF_PROG_GET_NEXT_ID)."""
    found: set[int] = set()
    identifier = 0
    while True:
        attributes = bytearray(struct.pack("=III", identifier, 0, 0))
        try:
            syscall(BPF[os.uname().machine], 11, address_of(attributes), len(attributes))
        except FileNotFoundError:
            return found
        identifier = struct.unpack("=III", attributes)[1]
        found.add(identifier)


def test_the_frozen_stand_still_and_go_on(make: Make, start: Starter) -> None:
    placement = make()
    child = start(placement, sys.executable, "-S", "-c", "import time\nwhile True: pass")
    until(lambda: ticks(child.pid) > 0, what="its first tick")
    cgroups.freeze(LAYOUT, PATH, frozen=True)
    assert cgroups.is_frozen(LAYOUT, PATH)
    before = ticks(child.pid)
    time.sleep(0.3)
    assert ticks(child.pid) == before
    cgroups.freeze(LAYOUT, PATH, frozen=False)
    assert not cgroups.is_frozen(LAYOUT, PATH)
    until(lambda: ticks(child.pid) > before, what="another tick")


def ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[11])


def test_removing_kills_what_is_left_even_the_frozen(make: Make, start: Starter) -> None:
    placement = make()
    child = start(placement, "sh", "-c", "trap '' TERM; while :; do sleep 100 & wait; done")
    deadline = time.monotonic() + 30
    while len(cgroups.pids(LAYOUT, PATH)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    members = {pid: proc.start_time(pid) for pid in cgroups.pids(LAYOUT, PATH)}
    assert child.pid in members and len(members) == 2
    cgroups.freeze(LAYOUT, PATH, frozen=True)
    cgroups.remove(LAYOUT, PATH)
    assert child.wait(5) == -signal.SIGKILL
    assert not [pid for pid, started in members.items() if proc.is_alive(pid, started)]


@pytest.mark.skipif("freezer" not in LAYOUT.legacy, reason="needs the version 1 freezer")
def test_version_1_alone_kills_a_group_that_forks_all_the_time(start: Starter) -> None:
    layout = LAYOUT.replace(unified="", unified_controllers=())
    placement = cgroups.create(layout, PATH, resources=Resources(pids_limit=30))
    try:
        assert placement.into == ""
        script = "import os\nos.setsid()\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
        child = start(placement, sys.executable, "-S", "-c", script)
        deadline = time.monotonic() + 30
        while len(cgroups.pids(layout, PATH)) < 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(cgroups.pids(layout, PATH)) >= 20
        cgroups.kill(layout, PATH)
        assert child.wait(5) == -signal.SIGKILL
        deadline = time.monotonic() + 30
        while cgroups.pids(layout, PATH) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert cgroups.pids(layout, PATH) == []
    finally:
        cgroups.remove(layout, PATH)


@pytest.mark.skipif("freezer" not in LAYOUT.legacy, reason="needs the version 1 freezer")
def test_version_1_alone_freezes_and_removes_the_frozen(start: Starter) -> None:
    layout = LAYOUT.replace(unified="", unified_controllers=())
    placement = cgroups.create(layout, PATH, resources=Resources())
    try:
        child = start(placement, "sleep", "100")
        cgroups.freeze(layout, PATH, frozen=True)
        assert cgroups.is_frozen(layout, PATH)
    finally:
        cgroups.remove(layout, PATH)
    assert child.wait(5) == -signal.SIGKILL


@pytest.mark.skipif("freezer" not in LAYOUT.legacy, reason="needs the version 1 freezer")
def test_a_process_that_ends_while_it_is_taken_out_of_a_foreign_freezer_is_no_error(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    os.makedirs(f"{LAYOUT.legacy['freezer']}/{PATH}")
    with subprocess.Popen(["true"]) as child:
        monkeypatch.setattr(cgroup_processes, "read_text", lambda _file: f"7:freezer:/elsewhere-{child.wait()}\n")
        cgroups.leave_foreign_freezer(LAYOUT, PATH, pid=child.pid)
    monkeypatch.undo()


def test_groups_that_the_container_made_are_removed_with_their_processes(make: Make, start: Starter) -> None:
    placement = make()
    inner = []
    for directory in (*placement.join, placement.into):
        if directory:
            os.makedirs(f"{directory}/inner/most")
            inner.append(f"{directory}/inner/most")
    child = start(cgroups.Placement(join=tuple(inner)), "sleep", "100")
    assert cgroups.pids(LAYOUT, PATH) == [child.pid]
    cgroups.remove(LAYOUT, PATH)
    assert child.wait(5) == -signal.SIGKILL


def test_an_update_bites_at_once(make: Make, start: Starter) -> None:
    placement = make(memory_bytes=200 << 20, pids_limit=50)
    cgroups.update(LAYOUT, PATH, resources=Resources(memory_bytes=300 << 20))
    cgroups.update(LAYOUT, PATH, resources=Resources(memory_bytes=32 << 20))
    child = start(placement, sys.executable, "-c", "x = bytearray(100 << 20)")
    assert child.wait(30) == -signal.SIGKILL


def test_processors_can_be_chosen(make: Make, start: Starter) -> None:
    placement = make(cpuset_cpus="0")
    child = start(placement, sys.executable, "-S", "-c", "import os; print(os.sched_getaffinity(0))")
    assert child.communicate(timeout=10)[0] == b"{0}\n"


def test_a_limit_that_comes_later_joins_its_hierarchy_with_every_process(make: Make, start: Starter) -> None:
    placement = make()
    code = "import os, time; os.fork() and os.write(1, b'1\\n'); time.sleep(60)"
    child = start(placement, sys.executable, "-S", "-c", code)
    assert child.stdout is not None and child.stdout.readline() == b"1\n"
    cgroups.update(LAYOUT, PATH, resources=Resources(cpu_quota_us=50_000, cpu_period_us=100_000, cpuset_cpus="0"))
    members = cgroups.pids(LAYOUT, PATH)
    assert len(members) == 2
    for controller in ("cpu", "cpuset"):
        if controller in LAYOUT.legacy:
            procs = Path(LAYOUT.legacy[controller], PATH, "cgroup.procs").read_text().split()
            assert {int(pid) for pid in procs} == set(members)
    assert all(os.sched_getaffinity(pid) == {0} for pid in members)
    cgroups.kill(LAYOUT, PATH)


@pytest.mark.parametrize("limits", [{"cpuset_cpus": "4095"}, {"cpu_quota_us": 5}, {"cpuset_mems": "9"}])
def test_a_limit_that_the_kernel_refuses_is_an_error_and_leaves_nothing(limits: dict[str, object]) -> None:
    with pytest.raises(CloisonError) as caught:
        cgroups.create(LAYOUT, PATH, resources=Resources(**limits))
    assert str(caught.value).startswith("cannot set cp")
    assert not [root for root in LAYOUT.all_roots() if os.path.exists(f"{root}/{PATH}")]


def test_a_group_that_exists_is_a_conflict_and_stays(make: Make) -> None:
    placement = make()
    with pytest.raises(Conflict):
        cgroups.create(LAYOUT, PATH, resources=Resources())
    assert all(os.path.isdir(directory) for directory in (*placement.join, placement.into) if directory)


def test_groups_are_made_while_somebody_takes_their_empty_parent_away() -> None:
    done = threading.Event()
    failures: list[BaseException] = []

    def take_away() -> None:
        while not done.wait(0.001):
            for root in LAYOUT.all_roots():
                with contextlib.suppress(OSError):
                    os.rmdir(f"{root}/{PARENT}")

    def cycle(name: str) -> None:
        try:
            for _round in range(60):
                cgroups.create(LAYOUT, f"{PARENT}/{name}", resources=Resources(pids_limit=5))
                cgroups.remove(LAYOUT, f"{PARENT}/{name}")
        except BaseException as err:
            failures.append(err)

    thief = threading.Thread(target=take_away)
    makers = [threading.Thread(target=cycle, args=(str(number),)) for number in range(3)]
    for thread in (thief, *makers):
        thread.start()
    for thread in makers:
        thread.join(60)
    done.set()
    thief.join(10)
    assert failures == []


def test_the_sweeper_sees_what_there_is(make: Make) -> None:
    assert cgroups.list_children(LAYOUT, PARENT) == set()
    make()
    assert cgroups.list_children(LAYOUT, PARENT) == {"group"}
    cgroups.remove(LAYOUT, PATH)
    assert cgroups.list_children(LAYOUT, PARENT) == set()
