"""config.json of a bundle: what is taken, and how a fault is named."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloison.errors import CloisonError, InvalidArgument, Unsupported
from cloison.model.container import ControlValue, DeviceRate
from cloison.oci.config_json import Config, parse_config
from cloison.oci.runtime import DeviceRule
from oci_bundle import CONFIG

Change = Callable[[dict[str, Any]], object]


def parse(change: Change = lambda config: None) -> Config:
    config = copy.deepcopy(CONFIG)
    change(config)
    return parse_config(config, bundle="/b")


def fault(change: Change) -> str:
    with pytest.raises(InvalidArgument) as caught:
        parse(change)
    return str(caught.value)


def test_a_bundle_becomes_a_spec() -> None:
    spec = parse().spec
    assert (spec.root.mount.source, spec.root.readonly, spec.hostname) == ("/b/rootfs", False, "inside")
    assert [mount.target for mount in spec.mounts] == ["/proc", "/dev", "/dev/pts"]
    assert [namespace.type for namespace in spec.linux.namespaces] == ["pid", "network", "ipc", "uts", "mount"]
    assert spec.process.no_new_privileges


def test_what_is_absent_has_the_specifications_default() -> None:
    spec = parse(lambda c: c["process"].pop("noNewPrivileges")).spec
    assert not spec.process.no_new_privileges
    assert spec.process.user.umask == 0o022
    assert spec.process.capabilities.bounding == ()
    assert not parse(lambda c: c.pop("process")).has_process


def test_relative_paths_belong_to_the_bundle() -> None:
    bind = {"destination": "x", "source": "data", "options": ["rbind"]}
    mount = parse(lambda c: c["mounts"].append(bind)).spec.mounts[-1]
    assert (mount.type, mount.source, mount.target) == ("bind", "/b/data", "/x")


def test_the_largest_number_is_no_limit() -> None:
    limit = {"type": "RLIMIT_NOFILE", "soft": 5, "hard": (1 << 64) - 1}
    (found,) = parse(lambda c: c["process"].update(rlimits=[limit])).spec.process.rlimits
    assert (found.soft, found.hard) == (5, -1)


def test_zero_means_leave_it_alone() -> None:
    zeros = {
        "memory": {"limit": 0, "swap": 0}, "cpu": {"shares": 0, "quota": 0}, "pids": {"limit": 0},
        "blockIO": {"weight": 0},
    }  # fmt: skip
    resources = parse(lambda c: c["linux"].update(resources=zeros)).spec.linux.resources
    assert (resources.memory_bytes, resources.cpu_shares, resources.pids_limit, resources.blkio_weight) == (None,) * 4


def test_every_resource_finds_its_place() -> None:
    wanted = {
        "memory": {"limit": 5, "swappiness": 10},
        "cpu": {"burst": 7},
        "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4}],
        "unified": {"memory.high": "6"},
        "devices": [{"allow": True, "type": "c", "major": 1, "minor": -1, "access": "rm"}],
    }
    linux = parse(lambda c: c["linux"].update(resources=wanted)).spec.linux
    assert linux.resources.memory_bytes == 5
    assert linux.resources.read_bps == (DeviceRate(path="8:0", rate=9),)
    assert linux.resources.values == (
        ControlValue(controller="memory", v1="memory.swappiness", value="10"),
        ControlValue(controller="cpu", v1="cpu.cfs_burst_us", v2="cpu.max.burst", value="7"),
        ControlValue(controller="hugetlb", v1="hugetlb.2MB.limit_in_bytes", v2="hugetlb.2MB.max", value="4"),
        ControlValue(controller="memory", v2="memory.high", value="6"),
    )
    assert linux.device_rules == (DeviceRule(allow=True, type="c", major=1, access="rm"),)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c.pop("ociVersion"), "ociVersion is missing"),
        (lambda c: c.pop("root"), "root is missing"),
        (lambda c: c["root"].update(path=""), "root.path is empty"),
        (lambda c: c["process"].update(args=[]), "process.args is empty"),
        (lambda c: c["process"].update(args="sh"), "process.args is not a list"),
        (lambda c: c["process"].update(args=["a\0b"]), "process.args is not a list of strings"),
        (lambda c: c["process"].pop("cwd"), "process.cwd is missing"),
        (lambda c: c["process"].update(cwd="tmp"), "process.cwd is not an absolute path"),
        (lambda c: c["process"]["user"].update(uid=-1), "process.user.uid is -1"),
        (lambda c: c["process"]["user"].update(uid=True), "process.user.uid is not a whole number"),
        (lambda c: c["process"]["user"].update(additionalGids=["x"]), "process.user.additionalGids is not a list"),
        (lambda c: c["process"].update(terminal="yes"), "process.terminal is neither true nor false"),
        (lambda c: c["process"].update(oomScoreAdj=2000), "process.oomScoreAdj is 2000"),
        (lambda c: c["process"].update(rlimits=[{"type": "X", "soft": 1}]), "process.rlimits[0].hard is missing"),
        (lambda c: c["process"].update(rlimits=[{"type": "X", "soft": 1, "hard": 1}] * 2), "two entries of one type"),
        (lambda c: c["mounts"].append({"type": "tmpfs"}), "mounts[3].destination is missing"),
        (lambda c: c["mounts"].append({"destination": "/x"}), "mounts[3].type is missing"),
        (lambda c: c["mounts"].append({"destination": "/x", "options": ["bind"]}), "mounts[3].source is missing"),
        (lambda c: c.update(mounts={}), "mounts is not a list"),
        (lambda c: c.update(annotations={"": "x"}), "annotations has an empty key"),
        (lambda c: c.update(hooks={"prestart": [{"path": "x"}]}), "hooks.prestart[0].path is not an absolute path"),
        (lambda c: c.update(hooks={"poststop": [{"path": "/x", "timeout": 0}]}), "hooks.poststop[0].timeout"),
        (lambda c: c["linux"]["namespaces"].append({"type": "pid"}), "linux.namespaces has two entries of one type"),
        (lambda c: c["linux"]["namespaces"].append({"type": "moon"}), "linux.namespaces[5].type is 'moon'"),
        (lambda c: c["linux"].update(uidMappings=[{"size": 0}]), "linux.uidMappings[0].size is 0"),
        (lambda c: c["linux"].update(devices=[{"path": "/dev/x", "type": "c", "major": 1}]), "linux.devices[0].minor"),
        (lambda c: c["linux"].update(maskedPaths=["x"]), "linux.maskedPaths has 'x'"),
        (lambda c: c["linux"].update(resources={"pids": 3}), "linux.resources.pids is not an object"),
        (lambda c: c["linux"].update(resources={"devices": [{"access": "x"}]}), "linux.resources.devices[0].access"),
        (lambda c: c["linux"].update(resources={"unified": {"../x.y": "1"}}), "linux.resources.unified has '../x.y'"),
        (lambda c: c["linux"].update(rootfsPropagation="odd"), "linux.rootfsPropagation is 'odd'"),
        (lambda c: c["linux"].update(netDevices={"a/b": {}}), "linux.netDevices has 'a/b'"),
        (lambda c: c["linux"].update(netDevices={"a": {"name": "x" * 16}}), "linux.netDevices has 'xxxx"),
        (lambda c: c["linux"].update(netDevices={"a": {}, "b": {"name": "a"}}), "linux.netDevices gives one name"),
        (lambda c: c["linux"].update(netDevices={"a": {}}, namespaces=[]), "linux.netDevices needs a network"),
    ],
)  # fmt: skip
def test_a_fault_is_named_by_its_place(change: Change, text: str) -> None:
    said = fault(change)
    assert said.startswith("invalid config.json: ")
    assert text in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(ociVersion="2.0.0"),
    ],
)
def test_what_is_not_carried_out_is_an_error(change: Change) -> None:
    with pytest.raises(Unsupported):
        parse(change)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
places = [
    [], ["process"], ["process", "user"], ["process", "args"], ["process", "rlimits"], ["process", "capabilities"],
    ["root"], ["mounts"], ["mounts", 0], ["mounts", 0, "options"], ["hooks"], ["linux"], ["linux", "namespaces"],
    ["linux", "namespaces", 0], ["linux", "resources"], ["linux", "resources", "memory"], ["linux", "devices"],
    ["linux", "timeOffsets"], ["linux", "sysctl"], ["annotations"], ["process", "scheduler"], ["process", "ioPriority"],
    ["process", "execCPUAffinity"], ["linux", "memoryPolicy"], ["linux", "personality"],
]  # fmt: skip


@given(place=st.sampled_from(places), value=anything)
def test_no_value_anywhere_is_more_than_one_clear_error(place: list[Any], value: object) -> None:
    config: Any = copy.deepcopy(CONFIG)
    config["linux"]["resources"] = {}
    if not place:
        config = value
    else:
        inner = config
        for step in place[:-1]:
            inner = inner[step]
        inner[place[-1]] = value
    try:
        parse_config(json.loads(json.dumps(config)), bundle="/b")
    except CloisonError as error:
        assert str(error)
