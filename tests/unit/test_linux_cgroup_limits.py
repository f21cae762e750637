"""Limits as the words that the kernel's control files want, compared as text."""

from __future__ import annotations

import pytest

from cloison.errors import InvalidArgument, NotFound, Unsupported
from cloison.linux.cgroup_layout import Layout
from cloison.linux.cgroup_limits import io_weight_from_blkio, plan_limits, weight_from_shares
from cloison.model.container import DeviceRate, Resources
from cloison.oci.runtime import DeviceRule

CONTROLLERS = ("cpu", "cpuacct", "memory", "devices", "freezer", "blkio", "pids", "cpuset")
V1 = Layout(legacy={name: f"/c/{name}" for name in CONTROLLERS})
V2 = Layout(unified="/c", unified_controllers=("cpu", "io", "memory", "pids", "cpuset"))
HYBRID = V1.replace(unified="/c/unified", unified_controllers=("hugetlb",))
NUMBERS = {"/dev/sda": "8:0", "/dev/sdb": "8:16"}


def planned(layout: Layout, rules: tuple[DeviceRule, ...] = (), **limits: object) -> list[str]:
    writes = plan_limits(layout, resources=Resources(**limits), device_rules=rules, device_number=NUMBERS.__getitem__)
    return [str(write) for write in writes]


def test_no_limit_writes_nothing() -> None:
    for layout in (V1, V2, HYBRID, Layout()):
        assert planned(layout) == []


def test_memory_without_swap_is_memory_and_no_swap() -> None:
    assert planned(V1, memory_bytes=64) == ["memory.limit_in_bytes 64", "memory.memsw.limit_in_bytes 64"]
    assert planned(V2, memory_bytes=64) == ["memory.max 64", "memory.swap.max 0", "memory.oom.group 1"]


def test_memory_and_swap_are_counted_together_as_docker_counts() -> None:
    limits = {"memory_bytes": 64, "memory_swap_bytes": 100}
    assert planned(V1, **limits) == ["memory.limit_in_bytes 64", "memory.memsw.limit_in_bytes 100"]
    assert planned(V2, **limits) == ["memory.max 64", "memory.swap.max 36", "memory.oom.group 1"]


def test_unlimited_is_minus_one_or_max() -> None:
    limits = {"memory_bytes": 64, "memory_swap_bytes": -1}
    assert planned(V1, **limits)[1] == "memory.memsw.limit_in_bytes -1"
    assert planned(V2, **limits)[1] == "memory.swap.max max"
    assert planned(V2, memory_bytes=-1)[:2] == ["memory.max max", "memory.swap.max max"]


def test_a_swap_limit_that_was_asked_for_may_not_be_dropped() -> None:
    asked = plan_limits(V2, resources=Resources(memory_bytes=64, memory_swap_bytes=100))
    silent = plan_limits(V2, resources=Resources(memory_bytes=64))
    assert [write.optional for write in asked] == [False, False, True]
    assert [write.optional for write in silent] == [False, True, True]


def test_a_reservation_is_a_soft_limit_or_low() -> None:
    assert planned(V1, memory_reservation_bytes=32) == ["memory.soft_limit_in_bytes 32"]
    assert planned(V2, memory_reservation_bytes=32) == ["memory.low 32"]


@pytest.mark.parametrize(
    "limits",
    [
        {"memory_swap_bytes": 100},
        {"memory_bytes": 100, "memory_swap_bytes": 99},
        {"memory_bytes": 100, "memory_reservation_bytes": 101},
        {"pids_limit": 0},
        {"pids_limit": -2},
        {"blkio_weight": 9},
        {"blkio_weight": 1001},
    ],
)
def test_limits_that_contradict_themselves_are_refused(limits: dict[str, int]) -> None:
    for layout in (V1, V2):
        with pytest.raises(InvalidArgument):
            planned(layout, **limits)


def test_half_a_processor_is_a_quota() -> None:
    limits = {"cpu_quota_us": 50_000, "cpu_period_us": 100_000}
    assert planned(V1, **limits) == ["cpu.cfs_period_us 100000", "cpu.cfs_quota_us 50000"]
    assert planned(V2, **limits) == ["cpu.max 50000 100000"]
    assert planned(V2, cpu_quota_us=-1) == ["cpu.max max 100000"]


def test_shares_become_a_weight_where_ends_and_middle_meet() -> None:
    assert [weight_from_shares(shares) for shares in (2, 1024, 262144)] == [1, 100, 10000]
    assert weight_from_shares(512) < 100 < weight_from_shares(2048)
    weights = [weight_from_shares(shares) for shares in range(2, 4096)]
    assert weights == sorted(weights)
    assert planned(V1, cpu_shares=512) == ["cpu.shares 512"]
    assert planned(V2, cpu_shares=1024) == ["cpu.weight 100"]


def test_disk_weights_fill_the_new_scale() -> None:
    assert [io_weight_from_blkio(weight) for weight in (10, 1000)] == [1, 10000]
    (write,) = plan_limits(V2, resources=Resources(blkio_weight=500))
    assert (write.file, write.value) == ("io.bfq.weight", "500")
    assert (write.other_file, write.other_value) == ("io.weight", "default 4950")
    (write,) = plan_limits(V1, resources=Resources(blkio_weight=500))
    assert (write.file, write.other_file) == ("blkio.bfq.weight", "blkio.weight")


def test_disk_rates_name_the_device_by_number() -> None:
    limits = {
        "read_bps": (DeviceRate(path="/dev/sda", rate=1000), DeviceRate(path="/dev/sdb", rate=5)),
        "write_iops": (DeviceRate(path="/dev/sda", rate=7),),
    }
    assert planned(V1, **limits) == [
        "blkio.throttle.read_bps_device 8:0 1000", "blkio.throttle.read_bps_device 8:16 5",
        "blkio.throttle.write_iops_device 8:0 7",
    ]  # fmt: skip
    assert planned(V2, **limits) == ["io.max 8:0 rbps=1000 wiops=7", "io.max 8:16 rbps=5"]


def test_a_rate_of_something_that_is_no_disk_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="not a block device"):
        plan_limits(V1, resources=Resources(read_bps=(DeviceRate(path="/dev/null", rate=1),)))
    with pytest.raises(NotFound, match="/dev/no-such-disk"):
        plan_limits(V1, resources=Resources(read_bps=(DeviceRate(path="/dev/no-such-disk", rate=1),)))


def test_processes_and_processors_have_the_same_words_in_both_versions() -> None:
    for layout in (V1, V2):
        assert planned(layout, pids_limit=10) == ["pids.max 10"]
        assert planned(layout, pids_limit=-1) == ["pids.max max"]
        assert planned(layout, cpuset_cpus="0-1", cpuset_mems="0") == ["cpuset.cpus 0-1", "cpuset.mems 0"]


def test_device_rules_are_lines_on_version_1_and_a_program_on_version_2() -> None:
    rules = (
        DeviceRule(allow=False),
        DeviceRule(allow=True, type="c", major=1, minor=3),
        DeviceRule(allow=True, type="c", major=136),
        DeviceRule(allow=True, type="u", major=1, minor=9, access="r"),
        DeviceRule(allow=False, access="m"),
    )
    expected = [
        "devices.deny a", "devices.allow c 1:3 rwm", "devices.allow c 136:* rwm", "devices.allow c 1:9 r",
        "devices.deny c *:* m", "devices.deny b *:* m",
    ]  # fmt: skip
    assert planned(V1, rules) == planned(HYBRID, rules) == expected
    assert planned(V2, rules) == []


@pytest.mark.parametrize(
    ("controller", "limits"),
    [
        ("memory", {"memory_bytes": 64}), ("cpu", {"cpu_quota_us": 10_000}), ("cpu", {"cpu_shares": 2}),
        ("cpuset", {"cpuset_cpus": "0"}), ("pids", {"pids_limit": 5}), ("blkio", {"blkio_weight": 10}),
        ("blkio", {"read_bps": (DeviceRate(path="/dev/sda", rate=1),)}),
    ],
)  # fmt: skip
def test_a_limit_without_its_controller_is_an_error_that_names_it(controller: str, limits: dict[str, object]) -> None:
    v2_name = "io" if controller == "blkio" else controller
    lacking = (
        Layout(),
        V1.replace(legacy={name: at for name, at in V1.legacy.items() if name != controller}),
        V2.replace(unified_controllers=tuple(name for name in V2.unified_controllers if name != v2_name)),
    )
    for layout in lacking:
        with pytest.raises(Unsupported, match=f"no {controller} control group controller") as caught:
            planned(layout, **limits)
        assert caught.value.hint


def test_device_rules_without_any_control_group_are_an_error() -> None:
    with pytest.raises(Unsupported, match="devices"):
        planned(Layout(), (DeviceRule(allow=False),))


def test_no_limit_of_processes_needs_no_controller() -> None:
    assert planned(Layout(), pids_limit=-1) == []
