"""What a container's start compiles to, compared as text: the order is the wall."""

from __future__ import annotations

import pytest

from cloison.errors import Denied, InvalidArgument, Unsupported
from cloison.linux.cgroups import Layout, Placement
from cloison.model.container import Stdio
from cloison.model.mount import IdMapping, Mount
from cloison.oci.runtime import Capabilities, Linux, Namespace, Process, Rlimit, Root, Spec, User
from cloison.runtime import defaults
from cloison.runtime.compile import Surroundings, plan_exec, plan_launch
from cloison.runtime.facts import HostFacts
from cloison.runtime.monitor import MonitorPlan
from cloison.runtime.plan import check, encode, render
from cloison.runtime.process import Filter

OVERLAY = Mount(
    type="overlay",
    source="overlay",
    target="/",
    options=("lowerdir+=/l/top", "lowerdir+=/l/base", "upperdir=/c/upper", "workdir=/c/work", "volatile", "index=off"),
)
NEW = tuple(Namespace(type=kind) for kind in ("mount", "pid", "network", "ipc", "uts", "cgroup"))
V1 = Placement(join=("/sys/fs/cgroup/memory/cloison/x", "/sys/fs/cgroup/cpu,cpuacct/cloison/x"))
V1_LAYOUT = Layout(
    legacy={
        "cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct", "memory": "/sys/fs/cgroup/memory",
        "cpuset": "/sys/fs/cgroup/cpuset",
    }
)  # fmt: skip
V2 = Placement(into="/sys/fs/cgroup/cloison/x", stats=(("oom", "/sys/fs/cgroup/cloison/x/memory.events", "oom_kill"),))
V2_LAYOUT = Layout(unified="/sys/fs/cgroup")
CGROUP = Mount(type="cgroup", source="cgroup", target="/sys/fs/cgroup", options=("nosuid", "ro"))
PROC = Mount(type="proc", source="proc", target="/proc")


def make_process(**changes: object) -> Process:
    return Process(args=("sh",)).replace(**changes)


def make_spec(*, linux: dict[str, object] | None = None, process: Process | None = None, **changes: object) -> Spec:
    plain = Spec(process=process or make_process(), root=Root(mount=OVERLAY), linux=Linux(namespaces=NEW))
    return plain.replace(linux=plain.linux.replace(**(linux or {})), **changes)


def around(placement: Placement = V2, layout: Layout = V2_LAYOUT, **changes: object) -> Surroundings:
    return Surroundings(placement=placement, layout=layout, staging="/run/root").replace(**changes)


def lines(spec: Spec, surroundings: Surroundings | None = None, *, stdio: Stdio | None = None) -> list[str]:
    ops = plan_launch(spec, around=surroundings or around(), stdio=stdio or Stdio())
    check(ops)
    assert encode(ops)
    return render(ops).splitlines()


def test_the_smallest_container_on_cgroup_v2_is_these_lines() -> None:
    assert lines(make_spec(mounts=(PROC, CGROUP))) == [
        "stdio null pipe pipe",
        "new-namespaces mnt pid ipc uts",
        "cgroup-fd /sys/fs/cgroup/cloison/x",
        "new-network",
        "propagation / rprivate",
        "root-overlay /run/root /c/upper /c/work volatile,index=off /l/top /l/base",
        "mount proc proc /proc ''",
        "join-network",
        "unshare cgroup",
        "mount cgroup2 cgroup /sys/fs/cgroup nosuid,ro",
        "pivot-root",
        "umask 22",
        "bounding 0",
        "user 0 0",
        "capabilities 0 0 0 0",
        "no-new-privs",
        "cwd /",
        "parent-death-signal 9",
        "env",
        "exec sh sh",
        "exit-stat oom /sys/fs/cgroup/cloison/x/memory.events oom_kill",
    ]


def test_on_cgroup_v1_the_wait_for_the_parent_comes_after_every_other_mount_and_before_the_cgroup_namespace() -> None:
    spec = make_spec(
        mounts=(PROC, CGROUP, Mount(type="tmpfs", source="tmpfs", target="/tmp")),
        linux={"masked_paths": ("/proc/kcore",), "readonly_paths": ("/proc/sys",), "sysctl": {"net.x": "1"}},
    )
    found = lines(spec, around(V1, V1_LAYOUT))
    joined = [f"cgroup-join {directory}" for directory in V1.join]
    start = found.index("mount tmpfs tmpfs /tmp ''")
    assert found[start : found.index("pivot-root")] == [
        "mount tmpfs tmpfs /tmp ''",
        "join-network",
        "sysctl net.x 1",
        "mask /proc/kcore",
        "readonly-path /proc/sys",
        *joined,
        "unshare cgroup",
        "mount tmpfs tmpfs /sys/fs/cgroup nosuid mode=755 size=64k nr_inodes=64",
        "directory /sys/fs/cgroup/cpu,cpuacct 755",
        "symlink cpu,cpuacct /sys/fs/cgroup/cpu",
        "symlink cpu,cpuacct /sys/fs/cgroup/cpuacct",
        "directory /sys/fs/cgroup/memory 755",
        "readonly-path /sys/fs/cgroup",
        "mount cgroup cgroup /sys/fs/cgroup/cpu,cpuacct nosuid,ro cpu,cpuacct",
        "mount cgroup cgroup /sys/fs/cgroup/memory nosuid,ro memory",
    ]


def test_a_hierarchy_the_container_is_not_placed_in_is_not_shown_to_it() -> None:
    assert not [line for line in lines(make_spec(mounts=(CGROUP,)), around(V1, V1_LAYOUT)) if "cpuset" in line]


def test_on_a_hybrid_machine_the_unified_tree_is_one_hierarchy_among_the_others() -> None:
    hybrid = V1.replace(into="/sys/fs/cgroup/unified/cloison/x")
    layout = V1_LAYOUT.replace(unified="/sys/fs/cgroup/unified")
    found = lines(make_spec(mounts=(CGROUP,)), around(hybrid, layout))
    assert "cgroup-fd /sys/fs/cgroup/unified/cloison/x" in found
    assert "mount cgroup2 cgroup /sys/fs/cgroup/unified nosuid,ro" in found


def test_limits_are_in_force_before_the_command_even_without_any_cgroup_mount() -> None:
    found = lines(make_spec(), around(V1, V1_LAYOUT))
    assert all(found.index(f"cgroup-join {directory}") < found.index("pivot-root") for directory in V1.join)


def test_mounts_keep_their_order_except_that_cgroups_and_what_touches_them_come_last() -> None:
    mounts = (
        Mount(type="sysfs", source="sysfs", target="/sys"),
        CGROUP,
        Mount(type="bind", source="/h/a", target="/sys/fs/cgroup/extra"),
        Mount(type="bind", source="/h/b", target="/sys/fs"),
        Mount(type="bind", source="/h/c", target="/sys/fs/cgroup-not"),
        Mount(type="bind", source="/h/d", target="/data"),
    )
    found = [line.split()[:4] for line in lines(make_spec(mounts=mounts)) if line.startswith(("mount ", "bind "))]
    assert [words[3] if words[0] == "mount" else words[2] for words in found] == [
        "/sys", "/data", "/sys/fs/cgroup", "/sys/fs/cgroup/extra", "/sys/fs", "/sys/fs/cgroup-not",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mount", "line"),
    [
        (("bind", "/h", ("rbind", "ro", "nosuid")), "bind /h /t 1 ro,nosuid rprivate"),
        (("bind", "/h", ("bind", "rw", "rslave")), "bind /h /t 0 '' rslave"),
        (("bind", "/h", ("ro", "rw")), "bind /h /t 0 '' rprivate"),
        (("bind", "/h", ("rbind", "rro", "rnosuid")), "bind /h /t 1 rro,rnosuid rprivate"),
        (("bind", "/h", ("rro", "ro", "rrw", "rnoatime", "ratime")), "bind /h /t 0 rrw,rrelatime,ro rprivate"),
        (
            ("tmpfs", "tmpfs", ("size=1m", "ro", "mode=755", "noexec")),
            "mount tmpfs tmpfs /t ro,noexec size=1m mode=755",
        ),
        (("tmpfs", "", ("noatime", "strictatime", "noexec", "exec")), "mount tmpfs tmpfs /t strictatime"),
        (("none", "/h", ("rbind",)), "bind /h /t 1 '' rprivate"),
    ],
)
def test_mount_option_words_are_sorted_into_attributes_propagation_and_data(
    mount: tuple[str, str, tuple[str, ...]], line: str
) -> None:
    kind, source, options = mount
    assert line in lines(make_spec(mounts=(Mount(type=kind, source=source, target="/t", options=options),)))


def test_an_option_that_would_be_lost_is_refused() -> None:
    for kind, word in (("bind", "size=1m"), ("tmpfs", "tmpcopyup"), ("bind", "idmap")):
        with pytest.raises(Unsupported, match=word):
            lines(make_spec(mounts=(Mount(type=kind, source="/h", target="/t", options=(word,)),)))


def test_a_shared_bind_is_refused_and_a_slave_one_keeps_the_tie_to_the_host() -> None:
    slave = Mount(type="bind", source="/h", target="/t", options=("rslave",))
    assert "propagation / rslave" in lines(make_spec(mounts=(slave,)))
    with pytest.raises(Unsupported, match="shared"):
        lines(make_spec(mounts=(slave.replace(options=("rshared",)),)))


def test_a_new_file_system_may_be_shared_for_it_has_no_peer_on_the_host() -> None:
    new = Mount(type="tmpfs", source="tmpfs", target="/t", options=("shared",))
    planned = lines(make_spec(mounts=(new, new.replace(target="/u", options=("slave",)))))
    assert "propagation / rprivate" in planned
    assert planned.index("pivot-root") < planned.index("propagation /t shared")
    assert "propagation /u slave" not in planned


def test_a_classic_lowerdir_is_split_at_colons_that_are_not_escaped() -> None:
    root = Root(mount=OVERLAY.replace(options=(r"lowerdir=/a\:b:/c\\d",)))
    assert r"root-overlay /run/root '' '' '' /a:b '/c\d'" in lines(make_spec(root=root))


def test_a_read_only_root_is_sealed_after_the_mounts_and_the_working_directory_and_before_the_pivot() -> None:
    found = lines(make_spec(root=Root(mount=OVERLAY, readonly=True), process=make_process(cwd="/srv")))
    assert found[found.index("pivot-root") - 2 : found.index("pivot-root")] == ["directory /srv 755", "readonly-root"]


def test_devices_come_only_into_a_dev_of_the_containers_own() -> None:
    own = Mount(type="tmpfs", source="tmpfs", target="/dev")
    devices = {"devices": defaults.devices()}
    found = lines(make_spec(mounts=(own,), linux=devices))
    assert "device /dev/null c 1 3 666 0 0" in found
    assert "symlink pts/ptmx /dev/ptmx" in found
    bound = lines(make_spec(mounts=(Mount(type="bind", source="/dev", target="/dev"),), linux=devices))
    assert not [line for line in bound if line.startswith(("device", "symlink"))]


def test_namespaces_are_made_joined_or_left_to_the_host() -> None:
    namespaces = (
        Namespace(type="mount"), Namespace(type="pid", path="/proc/9/ns/pid"),
        Namespace(type="network", path="/proc/9/ns/net"), Namespace(type="time"),
    )  # fmt: skip
    found = lines(make_spec(linux={"namespaces": namespaces, "time_offsets": {"boottime": (5, 6)}}))
    assert found[1:4] == ["new-namespaces mnt", "time-namespace 0 0 5 6", "join-pid-namespace /proc/9/ns/pid"]
    assert "join-namespace /proc/9/ns/net net" in found
    assert "loopback-up" not in found
    assert "unshare cgroup" not in found


def test_a_network_to_configure_is_handed_out_early_and_awaited_late() -> None:
    found = lines(make_spec(), around(configure_network=True, monitor=MonitorPlan(await_start="anyone")))
    assert found.index("send-netlink") < found.index("propagation / rprivate")
    assert "await-start client" in found
    assert found.index("await-start client") < found.index("exec sh sh")


def test_a_network_namespace_is_made_beside_the_child_and_entered_before_the_first_mount_that_shows_it() -> None:
    mounts = (PROC, Mount(type="tmpfs", source="tmpfs", target="/dev"), Mount(type="sysfs", source="s", target="/sys"))
    found = lines(make_spec(mounts=mounts))
    assert found.index("join-network") == found.index("mount tmpfs tmpfs /dev ''") + 1
    assert found[found.index("join-network") + 1].startswith("mount sysfs ")


def test_a_network_namespace_to_configure_is_entered_first() -> None:
    found = lines(make_spec(mounts=(PROC,)), around(configure_network=True))
    assert found.index("join-network") < found.index("send-netlink") < found.index("propagation / rprivate")
    assert found.count("join-network") == 1


def test_groups_that_are_still_being_made_are_awaited_by_the_launcher_and_it_by_the_child() -> None:
    for where, layout in ((V1, V1_LAYOUT), (V2, V2_LAYOUT)):
        found = lines(make_spec(), around(where, layout, placed_late=True))
        assert found[found.index("new-network") + 1] == "await-client"
        assert found.index("await-parent") < found.index("pivot-root")
        assert all(found.index("await-parent") < found.index(f"cgroup-join {directory}") for directory in where.join)


def test_a_child_that_is_placed_early_makes_its_own_network_namespace() -> None:
    """It waits for the launcher before anything else: what that hands over on the way would be taken for the word."""
    joined = (Namespace(type="mount", path="/proc/9/ns/mnt"), *(kind for kind in NEW if kind.type != "mount"))
    found = lines(make_spec(linux={"namespaces": joined}), around(V1, V1_LAYOUT, placed_late=True))
    assert not {"new-network", "join-network"}.intersection(found)
    assert " net" in next(line for line in found if line.startswith("new-namespaces"))
    assert found.index("await-parent") < found.index(f"cgroup-join {V1.join[0]}")


def test_without_no_new_privs_the_filter_is_loaded_while_there_is_still_the_right_to() -> None:
    def order(**changes: object) -> list[str]:
        found = lines(make_spec(process=make_process(**changes)), around(seccomp=Filter(program=b"\0" * 8)))
        verbs = [line.split()[0] for line in found]
        return [verb for verb in verbs if verb in ("seccomp", "user", "capabilities", "no-new-privs", "exec")]

    assert order() == ["user", "capabilities", "no-new-privs", "seccomp", "exec"]
    assert order(no_new_privileges=False) == ["seccomp", "user", "capabilities", "exec"]


def test_the_identity_is_exact_and_rights_are_five_explicit_sets() -> None:
    held = ("CAP_CHOWN", "CAP_KILL")
    process = make_process(
        user=User(uid=1000, gid=100, umask=0o27, additional_gids=(5, 7)),
        capabilities=Capabilities(bounding=held, effective=held[:1], permitted=held, ambient=held[:1]),
    )
    found = lines(make_spec(process=process))
    assert [line for line in found if line.startswith(("user", "capa", "bound", "umask"))] == [
        "umask 27", "bounding 21", "user 1000 100 5 7", "capabilities 1 21 0 1",
    ]  # fmt: skip


def test_a_capability_that_this_process_lacks_is_denied_by_name() -> None:
    facts = HostFacts(permitted=HostFacts().permitted & ~(1 << 24))
    process = make_process(capabilities=Capabilities(bounding=("CAP_KILL", "CAP_SYS_RESOURCE")))
    with pytest.raises(Denied, match="CAP_SYS_RESOURCE"):
        lines(make_spec(process=process), around(facts=facts))


@pytest.mark.parametrize(
    ("wanted", "may_raise", "line"),
    [
        ((1024, 524288), True, "rlimit 7 1024 524288"),
        ((1024, 524288), False, "rlimit 7 1024 20000"),
        ((-1, -1), False, "rlimit 7 20000 20000"),
        ((10, 100), False, "rlimit 7 10 100"),
        ((-1, -1), True, "rlimit 7 -1 -1"),
    ],
)
def test_limits_are_clamped_to_what_the_kernel_lets_us_set(wanted: tuple[int, int], may_raise: bool, line: str) -> None:
    permitted = HostFacts().permitted if may_raise else 0
    facts = HostFacts(permitted=permitted, hard_limits=(-1,) * 7 + (20000,) + (-1,) * 8)
    process = make_process(rlimits=(Rlimit(type="RLIMIT_NOFILE", soft=wanted[0], hard=wanted[1]),))
    assert line in lines(make_spec(process=process), around(facts=facts))


def test_a_user_namespace_is_mapped_before_the_first_mount_and_gives_every_capability() -> None:
    mapping = (IdMapping(container_id=0, host_id=100000, size=65536),)
    spec = make_spec(
        linux={"namespaces": (*NEW, Namespace(type="user")), "uid_mappings": mapping, "gid_mappings": mapping},
        process=make_process(capabilities=Capabilities(bounding=("CAP_SYS_ADMIN",))),
    )
    found = lines(spec, around(V1, V1_LAYOUT, facts=HostFacts(permitted=0)))
    assert found[1] == "new-namespaces mnt pid net ipc uts user"
    assert "loopback-up" in found and "new-network" not in found
    assert "uid-map '0 100000 65536\\n'" in found
    assert found.count("await-parent") == 1
    joined = [f"cgroup-join {directory}" for directory in V1.join]
    start = found.index("await-parent") + 1
    assert found[start : start + 3] == [*joined, "become 0 0"]
    assert start < found.index("propagation / rprivate")


def test_streams_log_relay_and_files_reach_the_monitor() -> None:
    monitor = MonitorPlan(
        listen=11,
        keep=(12, 13),
        log="/d/log",
        log_max_bytes=9,
        log_max_files=2,
        exit_file="/r/exit",
        reap=("/b", "_reap"),
    )
    found = lines(make_spec(), around(Placement(), monitor=monitor), stdio=Stdio(relay_out=1, detached=True))
    assert found[:2] == ["detach", "stdio null pipe pipe"]
    assert found[found.index("exec sh sh") + 1 :] == [
        "keep 12", "keep 13", "listen 11", "log /d/log 9 2", "relay -1 1 -1", "exit-file /r/exit", "reap /b _reap",
    ]  # fmt: skip


def test_streams_that_are_handed_over_have_no_log() -> None:
    found = lines(make_spec(), around(monitor=MonitorPlan(log="/d/log")), stdio=Stdio(stdout="fd:1", stderr="fd:2"))
    assert found[0] == "stdio null fd:1 fd:2"
    assert not [line for line in found if line.startswith("log")]


def test_a_terminal_is_made_inside_its_console_with_the_mounts_and_its_streams_after_the_pivot() -> None:
    process = make_process(terminal=True, console_size=(24, 80))
    found = lines(make_spec(process=process), stdio=Stdio(stdin="pty", stdout="pty", stderr="pty"))
    assert found.index("console") < found.index("pivot-root") == found.index("terminal 24 80 -1") - 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (make_spec(linux={"namespaces": NEW[1:]}), "mount namespace"),
        (make_spec(linux={"namespaces": (*NEW, NEW[0])}), "twice"),
        (make_spec(linux={"namespaces": (*NEW, Namespace(type="planet"))}), "planet"),
        (make_spec(linux={"namespaces": NEW[:2]}, hostname="h"), "hostname"),
        (make_spec(linux={"namespaces": (*NEW, Namespace(type="user"))}), "mappings"),
        (make_spec(process=make_process(args=())), "no command"),
        (make_spec(process=make_process(rlimits=(Rlimit(type="RLIMIT_X", soft=1, hard=1),))), "RLIMIT_X"),
        (make_spec(process=make_process(rlimits=(Rlimit(type="RLIMIT_CORE", soft=-1, hard=1),))), "above"),
    ],
    ids=["no-mount", "twice", "unknown", "hostname", "mappings", "command", "rlimit", "soft"],
)
def test_a_spec_that_contradicts_itself_is_refused(spec: Spec, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        lines(spec)


def test_exec_joins_every_namespace_and_repeats_the_walls() -> None:
    process = make_process(oom_score_adj=7, terminal=True, console_size=(2, 3))
    ops = plan_exec(
        process, pidfd=8, placement=V1.replace(into="/cg/x"), stdio=Stdio(stdin="pty", stdout="pty", stderr="pty"),
        facts=HostFacts(), seccomp=Filter(program=b"\0" * 8), keyring="abc", monitor=MonitorPlan(exit_file="/r/e"),
    )  # fmt: skip
    check(ops)
    assert render(ops).splitlines() == [
        "stdio pty pty pty",
        "new-namespaces",
        "join-pid-namespace 8",
        "cgroup-fd /cg/x",
        "oom-score-adj 7",
        *(f"cgroup-join {directory}" for directory in V1.join),
        "join-namespaces 8 mnt net ipc uts cgroup time",
        "keyring abc",
        "terminal 2 3 -1",
        "umask 22",
        "bounding 0",
        "user 0 0",
        "capabilities 0 0 0 0",
        "no-new-privs",
        "cwd /",
        "parent-death-signal 9",
        "seccomp <1 instructions> 0",
        "env",
        "exec sh sh",
        "exit-file /r/e",
    ]
