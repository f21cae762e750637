"""The policy that every container gets."""

from __future__ import annotations

import pytest

from cloison.errors import Denied, InvalidArgument
from cloison.linux.capabilities import CAPABILITIES
from cloison.model.container import Ulimit
from cloison.runtime import defaults
from cloison.runtime.facts import HostFacts, read_facts
from cloison.runtime.sysctls import NETWORK, plan_sysctls

ALMIGHTY = HostFacts()
LIMITED = HostFacts(permitted=ALMIGHTY.permitted & ~(1 << 24))  # all but CAP_SYS_RESOURCE


def test_root_in_a_container_has_eleven_capabilities_and_nothing_to_inherit() -> None:
    granted = defaults.capabilities(facts=ALMIGHTY)
    assert set(granted.bounding) == set(defaults.CAPABILITY_NAMES)
    assert len(granted.bounding) == 11
    assert granted.effective == granted.permitted == granted.bounding
    assert granted.inheritable == granted.ambient == ()
    assert not {"CAP_NET_RAW", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SYS_ADMIN"} & set(granted.bounding)


def test_a_command_that_is_not_root_holds_none_of_them() -> None:
    granted = defaults.capabilities(facts=ALMIGHTY, uid=1000, add=("NET_ADMIN",))
    assert granted.effective == granted.permitted == ()
    assert "CAP_NET_ADMIN" in granted.bounding


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (
            ("net_admin",),
            ("CHOWN", "cap_kill"),
            {*defaults.CAPABILITY_NAMES, "CAP_NET_ADMIN"} - {"CAP_CHOWN", "CAP_KILL"},
        ),
        (("NET_BIND_SERVICE",), ("ALL",), {"CAP_NET_BIND_SERVICE"}),
        ((), ("all",), set()),
        (("ALL",), ("SYS_ADMIN",), set(CAPABILITIES) - {"CAP_SYS_ADMIN"}),
        (("CHOWN",), ("CHOWN",), set(defaults.CAPABILITY_NAMES)),
    ],
)
def test_adding_and_dropping_follow_dockers_rules(
    add: tuple[str, ...], drop: tuple[str, ...], expected: set[str]
) -> None:
    assert set(defaults.capabilities(facts=ALMIGHTY, add=add, drop=drop).bounding) == expected


def test_all_and_privileged_mean_all_that_we_have_but_a_name_must_be_had() -> None:
    assert "CAP_SYS_RESOURCE" not in defaults.capabilities(facts=LIMITED, privileged=True).bounding
    assert len(defaults.capabilities(facts=LIMITED, add=("ALL",)).bounding) == 40
    with pytest.raises(Denied, match="CAP_SYS_RESOURCE"):
        defaults.capabilities(facts=LIMITED, add=("SYS_RESOURCE",))


def test_an_unknown_capability_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="FLY"):
        defaults.capabilities(facts=ALMIGHTY, add=("FLY",))


def test_every_memory_file_system_is_bounded_in_bytes_and_in_files() -> None:
    mounts = (*defaults.mounts(shm_size_bytes=1 << 20), *defaults.read_only_mounts())
    for mount in (mount for mount in mounts if mount.type == "tmpfs"):
        keys = {word.partition("=")[0] for word in mount.options}
        assert {"size", "nr_inodes", "mode", "nosuid"} <= keys, mount.target


def test_privileged_opens_sys_and_cgroup_for_writing_and_nothing_else_changes() -> None:
    plain, privileged = defaults.mounts(), defaults.mounts(privileged=True)
    changed = {mount.target for mount, other in zip(plain, privileged, strict=True) if mount != other}
    assert changed == {"/sys", "/sys/fs/cgroup"}
    assert all("ro" not in mount.options for mount in privileged)


def test_a_shared_ipc_brings_shm_with_it() -> None:
    shm = {mount.target: mount for mount in defaults.mounts(shm_source="/run/x/shm")}["/dev/shm"]
    assert (shm.type, shm.source) == ("bind", "/run/x/shm")
    host = {mount.target: mount.source for mount in defaults.mounts(host_ipc=True) if mount.type == "bind"}
    assert host == {"/dev/shm": "/dev/shm", "/dev/mqueue": "/dev/mqueue"}


def test_masks_cover_what_docker_and_podman_cover_and_the_counters_of_each_cpu() -> None:
    docker = {
        "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
        "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
        "/sys/firmware",
    }  # fmt: skip
    masked = defaults.masked_paths(facts=HostFacts(throttled_cpus=("cpu0", "cpu1")))
    assert docker <= set(masked)
    assert masked[-1] == "/sys/devices/system/cpu/cpu1/thermal_throttle"
    assert len(set(masked)) == len(masked)
    assert not set(masked) & set(defaults.readonly_paths())


def test_privileged_or_unconfined_paths_are_neither_masked_nor_read_only() -> None:
    for flag in ("privileged", "unmask"):
        assert defaults.masked_paths(facts=ALMIGHTY, **{flag: True}) == ()
        assert defaults.readonly_paths(**{flag: True}) == ()


def test_the_device_cgroup_denies_first_and_allows_every_default_node() -> None:
    first, *rest = defaults.device_rules()
    assert (first.allow, first.type, first.access) == (False, "a", "rwm")
    allowed = {(rule.major, rule.minor) for rule in rest}
    assert {(device.major, device.minor) for device in defaults.devices()} <= allowed
    assert (10, 229) not in allowed  # fuse
    assert all(rule.allow and rule.type == "c" for rule in rest)


def test_all_sixteen_limits_are_set_and_the_users_replace_ours() -> None:
    limits = {
        limit.type: (limit.soft, limit.hard) for limit in defaults.rlimits([Ulimit(name="nofile", soft=5, hard=6)])
    }
    assert len(limits) == 16
    assert limits["RLIMIT_NOFILE"] == (5, 6)
    assert limits["RLIMIT_CORE"] == (0, 0)
    assert {limit.type: limit.hard for limit in defaults.rlimits()}["RLIMIT_NOFILE"] == 524288


def test_senseless_ulimits_are_refused_in_dockers_words() -> None:
    with pytest.raises(InvalidArgument, match="invalid ulimit type: bogus"):
        defaults.rlimits([Ulimit(name="bogus", soft=1, hard=1)])
    with pytest.raises(InvalidArgument, match="soft limit must be less than or equal to hard limit: 7 > 6"):
        defaults.rlimits([Ulimit(name="nofile", soft=7, hard=6)])


def test_namespaces_are_new_shared_or_joined() -> None:
    chosen = {n.type: n.path for n in defaults.namespaces(facts=ALMIGHTY, network="host", pid="/proc/5/ns/pid")}
    assert chosen == {"mount": "", "cgroup": "", "pid": "/proc/5/ns/pid", "ipc": "", "uts": "", "time": ""}
    without = defaults.namespaces(facts=HostFacts(has_time_namespace=False))
    assert "time" not in {namespace.type for namespace in without}


def test_a_network_of_its_own_lets_anybody_bind_low_ports_and_ping() -> None:
    assert plan_sysctls({}, own_network=True, own_ipc=True) == NETWORK
    assert plan_sysctls({}, own_network=False, own_ipc=True) == {}


def test_slashes_and_dots_name_the_same_sysctl() -> None:
    wanted = {"net/ipv4/ip_forward": "1", "kernel.sem": "1 2 3 4", "fs.mqueue.msg_max": "5"}
    assert {"net.ipv4.ip_forward": "1", "kernel.sem": "1 2 3 4", "fs.mqueue.msg_max": "5"}.items() <= plan_sysctls(
        wanted, own_network=True, own_ipc=True
    ).items()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kernel.core_pattern", "|/evil"), ("kernel.shmmax", "1\n2"), ("kernel.shmmax", "1+kernel.core_pattern=x"),
        ("kernel.shmmax", ""), ("kernel.shmmax", "1\0"), ("net..x", "1"), ("net.ipv4/../../kernel/core_pattern", "1"),
        ("NET.ipv4.ip_forward", "1"), ("kernel.shmmax ", "1"), ("vm.overcommit_memory", "1"), ("net", "1"),
        ("kernel.semx", "1"), ("/net/ipv4/ip_forward", "1"), ("kernel.hostname", "x"),
    ],
)  # fmt: skip
def test_a_sysctl_that_is_malformed_or_not_namespaced_never_reaches_a_plan(key: str, value: str) -> None:
    with pytest.raises((InvalidArgument, Denied)):
        plan_sysctls({key: value}, own_network=True, own_ipc=True)


def test_a_sysctl_of_a_namespace_that_is_the_hosts_is_denied() -> None:
    with pytest.raises(Denied, match="network"):
        plan_sysctls({"net.ipv4.ip_forward": "1"}, own_network=False, own_ipc=True)
    with pytest.raises(Denied, match="IPC"):
        plan_sysctls({"kernel.sem": "1"}, own_network=True, own_ipc=False)


def test_facts_are_those_of_this_process() -> None:
    import resource

    facts = read_facts()
    hard = [resource.getrlimit(number)[1] for number in range(16)]
    assert list(facts.hard_limits) == hard
    assert facts.last_capability >= 37
    assert facts.permitted >> (facts.last_capability + 1) == 0
