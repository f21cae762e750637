"""Control groups on trees of plain directories: version 1, version 2 and hybrid."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloison.errors import Conflict, Denied, InvalidArgument, NotFound, Unsupported
from cloison.linux import cgroups
from cloison.linux.cgroup_layout import parse_layout
from cloison.model.container import ControlValue, Resources
from cloison.oci.runtime import DeviceRule
from fake_cgroups import FakeTrees

ALL_V1 = ("cpu,cpuacct", "memory", "devices", "freezer", "blkio", "pids", "cpuset")
ALL_V2 = ("cpuset", "cpu", "io", "memory", "pids")
PATH = "cloison-unit/abc"
LIMITS = Resources(memory_bytes=64 << 20, pids_limit=10, cpu_quota_us=50_000, cpu_period_us=100_000)


@pytest.fixture
def v1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTrees:
    trees = FakeTrees(tmp_path / "cgroup", v1=ALL_V1)
    trees.install(monkeypatch)
    return trees


@pytest.fixture
def v2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTrees:
    trees = FakeTrees(tmp_path / "cgroup", v2=ALL_V2)
    trees.install(monkeypatch)
    return trees


@pytest.fixture
def hybrid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTrees:
    trees = FakeTrees(tmp_path / "cgroup", v1=ALL_V1, v2=("hugetlb",))
    trees.install(monkeypatch)
    return trees


@pytest.fixture(params=["v1", "v2", "hybrid"])
def trees(request: pytest.FixtureRequest) -> FakeTrees:
    found: FakeTrees = request.getfixturevalue(request.param)
    return found


def directories(trees: FakeTrees) -> set[str]:
    """Every directory below the hierarchies' roots."""
    return {
        str(Path(at).relative_to(trees.top))
        for at, _names, _files in os.walk(trees.top)
        if len(Path(at).relative_to(trees.top).parts) > 1
    }


def value(trees: FakeTrees, hierarchy: str, file: str) -> str:
    return (trees.top / hierarchy / PATH / file).read_text()


def test_version_1_hierarchies_are_found_with_what_they_share(v1: FakeTrees) -> None:
    layout = v1.layout()
    assert layout.legacy["cpu"] == layout.legacy["cpuacct"] == str(v1.top / "cpu,cpuacct")
    assert layout.unified == ""
    assert {name: layout.version_of(name) for name in ("memory", "blkio", "hugetlb")} == {
        "memory": 1, "blkio": 1, "hugetlb": 0,
    }  # fmt: skip
    assert len(layout.hierarchies(["cpu", "blkio"])) == 6


def test_version_2_has_devices_and_freezer_inborn(v2: FakeTrees) -> None:
    layout = v2.layout()
    names = ("memory", "blkio", "devices", "freezer", "hugetlb")
    assert [layout.version_of(name) for name in names] == [2, 2, 2, 2, 0]
    assert layout.hierarchies(["cpuset"]) == ()


def test_a_hybrid_prefers_the_tree_that_has_the_controller(hybrid: FakeTrees) -> None:
    layout = hybrid.layout()
    assert [layout.version_of(name) for name in ("memory", "devices", "hugetlb", "misc")] == [1, 1, 2, 0]
    assert layout.all_roots()[0] == layout.unified


def test_a_mount_point_with_a_blank_is_read(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "30 20 0:1 / /sys/a\\040b\\134 rw - cgroup cgroup rw,memory\n31 20 0:2 / /x rw - tmpfs cgroup rw\n"
    )
    assert parse_layout(str(table)).legacy == {"memory": "/sys/a b\\"}


def test_version_1_gets_a_directory_in_each_hierarchy_that_matters(v1: FakeTrees) -> None:
    placement = cgroups.create(v1.layout(), PATH, resources=LIMITS, device_rules=(DeviceRule(allow=False),))
    names = ("memory", "devices", "pids", "freezer", "cpu,cpuacct")
    assert placement.join == tuple(f"{v1.top}/{name}/{PATH}" for name in names)
    assert placement.into == ""
    assert value(v1, "memory", "memory.limit_in_bytes") == str(64 << 20)
    assert value(v1, "memory", "memory.memsw.limit_in_bytes") == str(64 << 20)
    assert value(v1, "pids", "pids.max") == "10"
    assert value(v1, "cpu,cpuacct", "cpu.cfs_quota_us") == "50000"
    assert value(v1, "devices", "devices.deny") == "a"
    assert not (v1.top / "cpuset" / PATH).exists()
    assert not (v1.top / "blkio" / PATH).exists()


def test_version_1_hierarchies_are_joined_for_their_figures_when_asked_for(v1: FakeTrees) -> None:
    layout = v1.layout()
    (v1.top / "cpuset/cpuset.cpus").write_text("0-3\n")
    (v1.top / "cpuset/cpuset.mems").write_text("0\n")
    placement = cgroups.create(layout, PATH, resources=Resources(), controllers=layout.legacy)
    assert set(placement.join) == {f"{v1.top}/{name}/{PATH}" for name in ALL_V1}
    assert cgroups.find(layout, PATH).join == placement.join
    assert value(v1, "cpuset", "cpuset.cpus") == "0-3"


def test_what_a_limit_of_an_uncommon_controller_made_is_found_and_removed(tmp_path: Path, v1: FakeTrees) -> None:
    mount = f"1 0 0:1 / {v1.top}/hugetlb rw - cgroup cgroup rw,hugetlb\n"
    (tmp_path / "mountinfo").write_text(f"{mount}2 0 0:2 / {v1.top}/pids rw - cgroup cgroup rw,pids\n")
    (v1.top / "hugetlb" / PATH).mkdir(parents=True)
    layout = parse_layout(str(tmp_path / "mountinfo"))
    assert cgroups.find(layout, PATH).join == (f"{v1.top}/hugetlb/{PATH}",)
    cgroups.remove(layout, PATH)
    assert not (v1.top / "hugetlb" / PATH).exists()


def test_version_1_cpusets_take_what_the_parent_has(v1: FakeTrees) -> None:
    (v1.top / "cpuset/cpuset.cpus").write_text("0-3\n")
    (v1.top / "cpuset/cpuset.mems").write_text("0\n")
    placement = cgroups.create(v1.layout(), PATH, resources=Resources(cpuset_cpus="1"))
    assert f"{v1.top}/cpuset/{PATH}" in placement.join
    assert (v1.top / "cpuset/cloison-unit/cpuset.cpus").read_text() == "0-3"
    assert (value(v1, "cpuset", "cpuset.cpus"), value(v1, "cpuset", "cpuset.mems")) == ("1", "0")


def test_version_2_enables_controllers_above_and_never_in_the_group_itself(v2: FakeTrees) -> None:
    placement = cgroups.create(v2.layout(), PATH, resources=LIMITS)
    assert placement.join == ()
    assert placement.into == f"{v2.top}/unified/{PATH}"
    assert (v2.top / "unified/cgroup.subtree_control").read_text().split() == ["cpu", "io", "memory", "pids"]
    assert value(v2, "unified", "cgroup.subtree_control") == ""
    assert value(v2, "unified", "memory.max") == str(64 << 20)
    assert value(v2, "unified", "memory.swap.max") == "0"
    assert value(v2, "unified", "memory.oom.group") == "1"
    assert value(v2, "unified", "cpu.max") == "50000 100000"
    assert {key: (Path(file).name, field) for key, file, field in placement.stats} == {
        "oom": ("memory.events", "oom_kill"), "memory_peak": ("memory.peak", ""),
    }  # fmt: skip


def test_version_2_enables_once(v2: FakeTrees) -> None:
    cgroups.create(v2.layout(), PATH, resources=LIMITS)
    v2.written.clear()
    cgroups.create(v2.layout(), "cloison-unit/second", resources=LIMITS)
    assert not [file for file, _value in v2.written if file.endswith("subtree_control")]
    cgroups.create(v2.layout(), "cloison-unit/third", resources=Resources(cpuset_cpus="0"))
    assert [value for file, value in v2.written if file.endswith("subtree_control")] == ["+cpuset", "+cpuset"]


def test_version_2_enables_a_rare_controller_when_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees = FakeTrees(tmp_path / "cgroup", v2=(*ALL_V2, "hugetlb", "rdma"))
    trees.install(monkeypatch)
    pages = ControlValue(controller="hugetlb", v2="hugetlb.2MB.max", value="4194304")
    cgroups.create(trees.layout(), PATH, resources=LIMITS.replace(values=(pages,)))
    assert value(trees, "unified", "hugetlb.2MB.max") == "4194304"
    enabled = (trees.top / "unified/cgroup.subtree_control").read_text().split()
    assert "hugetlb" in enabled and "rdma" not in enabled


def test_version_2_without_delegation_is_an_error_that_names_the_controller(v2: FakeTrees) -> None:
    layout = v2.layout()
    (v2.top / "unified/cgroup.controllers").write_text("cpu pids")
    with pytest.raises(Denied, match="memory controller") as caught:
        cgroups.create(layout, PATH, resources=LIMITS)
    assert "given only: cpu pids" in str(caught.value)
    assert "Delegate=memory" in caught.value.hint
    assert directories(v2) == set()


def test_version_2_without_a_limit_does_not_miss_the_controller(v2: FakeTrees) -> None:
    layout = v2.layout()
    (v2.top / "unified/cgroup.controllers").write_text("cpu pids")
    cgroups.create(layout, PATH, resources=Resources(pids_limit=5))
    assert value(v2, "unified", "pids.max") == "5"


def test_a_hybrid_limits_in_version_1_and_starts_in_version_2(hybrid: FakeTrees) -> None:
    placement = cgroups.create(hybrid.layout(), PATH, resources=LIMITS, device_rules=(DeviceRule(allow=False),))
    assert placement.into == f"{hybrid.top}/unified/{PATH}"
    names = ("memory", "devices", "pids", "cpu,cpuacct")  # the version 2 tree freezes, and counts the time
    assert placement.join == tuple(f"{hybrid.top}/{name}/{PATH}" for name in names)
    assert value(hybrid, "memory", "memory.limit_in_bytes") == str(64 << 20)
    assert value(hybrid, "devices", "devices.deny") == "a"
    assert {Path(file).name for _key, file, _field in placement.stats} == {
        "memory.oom_control", "memory.max_usage_in_bytes",
    }  # fmt: skip


def test_what_is_removed_is_gone_everywhere_and_can_be_removed_again(trees: FakeTrees) -> None:
    layout = trees.layout()
    cgroups.create(layout, PATH, resources=LIMITS)
    assert cgroups.list_children(layout, "cloison-unit") == {"abc"}
    cgroups.remove(layout, PATH)
    assert not {name for name in directories(trees) if name.endswith("abc")}
    assert cgroups.list_children(layout, "cloison-unit") == set()
    cgroups.remove(layout, PATH)
    cgroups.remove(layout, "cloison-unit")
    assert not {name for name in directories(trees) if "cloison" in name}


def test_groups_below_are_removed_too(trees: FakeTrees) -> None:
    layout = trees.layout()
    cgroups.create(layout, PATH, resources=LIMITS)
    for root in layout.all_roots():
        if (Path(root) / PATH).exists():
            os.mkdir(f"{root}/{PATH}/init.scope")
            os.mkdir(f"{root}/{PATH}/init.scope/deep")
    cgroups.remove(layout, PATH)
    assert not {name for name in directories(trees) if "abc" in name}


def test_what_exists_is_not_made_again_and_stays(trees: FakeTrees) -> None:
    layout = trees.layout()
    cgroups.create(layout, PATH, resources=LIMITS)
    before = directories(trees)
    with pytest.raises(Conflict):
        cgroups.create(layout, PATH, resources=LIMITS)
    assert directories(trees) == before


def test_a_limit_that_the_kernel_refuses_leaves_nothing_behind(
    trees: FakeTrees, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    before = directories(trees)
    real = os.write

    def refuse(fd: int, data: bytes) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("pids.max"):
            raise OSError(errno.EINVAL, "refused")
        return real(fd, data)

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(InvalidArgument, match=r"cannot set pids\.max to 10"):
        cgroups.create(trees.layout(), PATH, resources=LIMITS)
    assert directories(trees) == before


def test_swap_accounting_that_is_missing_matters_only_when_asked_for(
    v1: FakeTrees, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "fake_cgroups.V1_FILES", {"memory": ("memory.limit_in_bytes",), "pids": ("pids.max",), "cpu": ("cpu.shares",)}
    )
    layout = v1.layout()
    cgroups.create(layout, "cloison-unit/silent", resources=Resources(memory_bytes=64))
    with pytest.raises(Unsupported, match="memsw") as caught:
        cgroups.create(layout, PATH, resources=Resources(memory_bytes=64, memory_swap_bytes=100))
    assert "swapaccount=1" in caught.value.hint
    assert not (v1.top / "memory" / PATH).exists()


@pytest.mark.parametrize("path", ["", "/abs", "a/../b", "..", "a//b", "a/", "./a"])
def test_a_path_that_could_leave_is_refused(v1: FakeTrees, path: str) -> None:
    with pytest.raises(InvalidArgument):
        cgroups.create(v1.layout(), path, resources=Resources())
    with pytest.raises(InvalidArgument):
        cgroups.remove(v1.layout(), path)


def test_an_update_writes_what_is_given_and_nothing_else(trees: FakeTrees) -> None:
    layout = trees.layout()
    cgroups.create(layout, PATH, resources=LIMITS)
    trees.written.clear()
    cgroups.update(layout, PATH, resources=Resources(pids_limit=20))
    assert [(Path(file).name, text) for file, text in trees.written] == [("pids.max", "20")]


def test_an_update_of_nothing_is_not_found(trees: FakeTrees) -> None:
    with pytest.raises(NotFound):
        cgroups.update(trees.layout(), PATH, resources=Resources(pids_limit=20))
    with pytest.raises(NotFound):
        cgroups.find(trees.layout(), PATH)


def test_memory_grows_from_the_outside_and_shrinks_from_the_inside(v1: FakeTrees) -> None:
    layout = v1.layout()
    cgroups.create(layout, PATH, resources=Resources(memory_bytes=100))
    orders = []
    for limit in (200, 50):
        v1.written.clear()
        cgroups.update(layout, PATH, resources=Resources(memory_bytes=limit))
        orders.append([Path(file).name for file, _text in v1.written])
    assert orders == [
        ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"],
        ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"],
    ]


def test_another_process_finds_the_same_place(trees: FakeTrees) -> None:
    layout = trees.layout()
    made = cgroups.create(layout, PATH, resources=LIMITS)
    assert cgroups.find(layout, PATH) == made


def test_figures_are_read_from_the_right_tree(trees: FakeTrees) -> None:
    layout = trees.layout()
    placement = cgroups.create(layout, PATH, resources=LIMITS)
    texts = {"oom": "oom_kill_disable 0\nunder_oom 0\noom 5\noom_kill 3\n", "memory_peak": "4096\n"}
    for key, file, _field in placement.stats:
        Path(file).write_text(texts[key])
    assert (cgroups.oom_kills(layout, PATH), cgroups.memory_peak(layout, PATH)) == (3, 4096)
    assert (cgroups.oom_kills(layout, "cloison-unit/none"), cgroups.memory_peak(layout, "cloison-unit/none")) == (0, 0)


def test_freezing_prefers_version_2_where_the_frozen_can_be_killed(hybrid: FakeTrees) -> None:
    layout = hybrid.layout()
    cgroups.create(layout, PATH, resources=LIMITS)
    cgroups.freeze(layout, PATH, frozen=True)
    assert cgroups.is_frozen(layout, PATH)
    assert not (hybrid.top / "freezer" / PATH).exists()
    cgroups.freeze(layout, PATH, frozen=False)
    assert not cgroups.is_frozen(layout, PATH)


def test_version_1_freezes_by_its_own_controller(v1: FakeTrees) -> None:
    layout = v1.layout()
    cgroups.create(layout, PATH, resources=LIMITS)
    cgroups.freeze(layout, PATH, frozen=True)
    assert value(v1, "freezer", "freezer.state") == "FROZEN"
    assert cgroups.is_frozen(layout, PATH)


def test_freezing_what_is_not_there_is_not_found(trees: FakeTrees) -> None:
    with pytest.raises(NotFound):
        cgroups.freeze(trees.layout(), PATH, frozen=True)
    assert not cgroups.is_frozen(trees.layout(), PATH)


def test_killing_what_is_not_there_is_silent(trees: FakeTrees) -> None:
    cgroups.kill(trees.layout(), PATH)
    assert cgroups.pids(trees.layout(), PATH) == []


def test_version_2_kills_with_one_write(v2: FakeTrees) -> None:
    layout = v2.layout()
    cgroups.create(layout, PATH, resources=LIMITS)
    (v2.top / "unified" / PATH / "cgroup.procs").write_text("4194304000\n")
    assert cgroups.pids(layout, PATH) == [4194304000]
    v2.written.clear()
    cgroups.kill(layout, PATH)
    assert (f"unified/{PATH}/cgroup.kill", "1") in v2.written
    assert cgroups.pids(layout, PATH) == []
