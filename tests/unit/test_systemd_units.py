"""What systemd is told of a container: its unit's name and properties, from limits, device rules and annotations."""

from __future__ import annotations

import pytest

from cloison.errors import InvalidArgument
from cloison.linux.cgroup_layout import Layout
from cloison.linux.cgroup_limits import plan_limits
from cloison.linux.systemd_properties import (
    annotated_properties,
    device_properties,
    parse_devices,
    parse_set,
    parse_variant,
    properties_of,
)
from cloison.model.container import ControlValue, DeviceRate, Resources
from cloison.oci.runtime import DeviceRule
from cloison.oci_runtime.systemd_unit import Unit, parse_unit

V2 = Layout(unified="/cg", unified_controllers=("cpu", "io", "memory", "pids", "cpuset"))
V1 = Layout(legacy={name: f"/cg/{name}" for name in ("cpu", "memory", "pids", "blkio", "cpuset", "devices")})
UNLIMITED = (1 << 64) - 1


def told(layout: Layout = V2, **limits: object) -> dict[str, tuple[str, object]]:
    return dict(properties_of(plan_limits(layout, resources=Resources(**limits))))


def test_a_unit_is_named_by_its_path() -> None:
    def unit(path: str, **more: bool) -> Unit:
        return parse_unit(path, container_id="c1", is_root=more.get("is_root", True))

    assert unit("machine.slice:podman:c1") == Unit(name="podman-c1.scope", slice="machine.slice")
    assert unit("a-b.slice::c1") == Unit(name="c1.scope", slice="a-b.slice")
    assert unit("a.slice:x:own.slice") == Unit(name="own.slice", slice="a.slice")
    assert unit("") == Unit(name="cloison-c1.scope", slice="system.slice")
    assert unit("", is_root=False) == Unit(name="cloison-c1.scope", slice="user.slice")


@pytest.mark.parametrize("path", ["/docker/c1", "a:b:c", "a.slice:b", "a.slice:b:", "a/b.slice:c:d", "a.slice:b:c/d"])
def test_other_paths_are_refused_in_runcs_words(path: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid cgroupsPath"):
        parse_unit(path, container_id="c1", is_root=True)


def test_limits_of_version_2_become_properties() -> None:
    assert told(memory_bytes=64 << 20, memory_swap_bytes=-1, memory_reservation_bytes=1 << 20) == {
        "MemoryMax": ("t", 64 << 20), "MemorySwapMax": ("t", UNLIMITED), "MemoryLow": ("t", 1 << 20),
    }  # fmt: skip
    assert told(cpu_shares=1024, pids_limit=-1) == {"CPUWeight": ("t", 100), "TasksMax": ("t", UNLIMITED)}
    assert told(cpuset_cpus="0-2,8", cpuset_mems="0") == {
        "AllowedCPUs": ("ay", [7, 1]), "AllowedMemoryNodes": ("ay", [1]),
    }  # fmt: skip
    assert told(blkio_weight=500) == {"IOWeight": ("t", 4950)}
    assert told(read_bps=(DeviceRate(path="8:0", rate=1000),), write_iops=(DeviceRate(path="8:0", rate=0),)) == {
        "IOReadBandwidthMax": ("a(st)", [("/dev/block/8:0", 1000)]),
        "IOWriteIOPSMax": ("a(st)", [("/dev/block/8:0", UNLIMITED)]),
    }


def test_limits_of_version_1_have_names_of_their_own() -> None:
    assert told(V1, memory_bytes=64 << 20, cpu_shares=512, cpu_quota_us=25_000, cpu_period_us=50_000) == {
        "MemoryLimit": ("t", 64 << 20), "CPUShares": ("t", 512), "CPUQuotaPerSecUSec": ("t", 500_000),
        "CPUQuotaPeriodUSec": ("t", 50_000),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("quota", "period", "per_second"),
    [(50_000, 100_000, 500_000), (1, 1_000_000, 10_000), (33_333, 100_000, 340_000), (-1, 100_000, UNLIMITED)],
)
def test_a_quota_is_rounded_up_to_a_percent(quota: int, period: int, per_second: int) -> None:
    assert told(cpu_quota_us=quota, cpu_period_us=period)["CPUQuotaPerSecUSec"] == ("t", per_second)


def test_what_systemd_cannot_say_is_left_to_the_control_files() -> None:
    values = (
        ControlValue(controller="memory", v2="memory.high", value="10M"),
        ControlValue(controller="memory", v2="memory.oom.group", value="1"),
        ControlValue(controller="cpu", v2="cpu.max", value="max"),
    )
    assert told(values=values) == {
        "CPUQuotaPerSecUSec": ("t", UNLIMITED), "CPUQuotaPeriodUSec": ("t", 100_000),
    }  # fmt: skip


@pytest.mark.parametrize("text", ["x", "3-1", "1-", "", "-1", "99999999", "²"])
def test_a_set_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_set(text)


DENY = DeviceRule(allow=False)
NAMES = parse_devices("Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n")


def test_an_allow_list_of_devices_becomes_one_of_systemd() -> None:
    rules = (
        DeviceRule(allow=True, type="c", major=5, minor=5), DENY, DeviceRule(allow=True, type="c", major=1, minor=3),
        DeviceRule(allow=True, type="c", access="m"), DeviceRule(allow=True, type="b", major=8, access="r"),
    )  # fmt: skip
    listed = [("/dev/char/1:3", "rwm"), ("char-*", "m"), ("block-sd", "r")]
    assert device_properties(rules, names=NAMES) == [
        ("DevicePolicy", ("s", "strict")),
        ("DeviceAllow", ("a(ss)", listed)),
    ]


@pytest.mark.parametrize(
    "rule",
    [
        DeviceRule(allow=True),
        DeviceRule(allow=False, type="c", major=1, minor=3),
        DeviceRule(allow=True, type="c", major=77),
        DeviceRule(allow=True, type="c", minor=3),
    ],
)
def test_other_rules_are_left_to_our_own_filter(rule: DeviceRule) -> None:
    assert device_properties((DENY, rule), names=NAMES) == []


def test_annotations_become_properties_with_seconds_in_microseconds() -> None:
    annotations = {
        "org.systemd.property.TimeoutStopSec": "uint64 5", "org.systemd.property.CollectMode": "'inactive'",
        "org.systemd.property.After": "['a.service', 'b.service']", "org.systemd.property.MemoryHighSec": "1.5",
        "org.example": "no property",
    }  # fmt: skip
    assert annotated_properties(annotations) == [
        ("TimeoutStopUSec", ("t", 5_000_000)), ("CollectMode", ("s", "inactive")),
        ("After", ("as", ["a.service", "b.service"])), ("MemoryHighUSec", ("t", 1_500_000)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lower", "1"),
        ("A/B", "1"),
        ("", "1"),
        ("Some", "'open"),
        ("Some", "[1, 'a']"),
        ("Some", "x"),
        ("SomeSec", "'a'"),
    ],
)
def test_a_strange_annotation_is_an_error(name: str, value: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid annotation"):
        annotated_properties({f"org.systemd.property.{name}": value})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", ("b", True)), ("-5", ("i", -5)), ("uint32 7", ("u", 7)), ('"a b"', ("s", "a b")), ("1.5", ("d", 1.5)),
        ("objectpath '/a'", ("o", "/a")), ("[true, false]", ("ab", [True, False])),
    ],
)  # fmt: skip
def test_values_have_the_types_of_gvariant(text: str, expected: tuple[str, object]) -> None:
    assert parse_variant(text) == expected
