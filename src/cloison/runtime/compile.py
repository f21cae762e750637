"""Spec + facts -> launch plan. Pure: no file is opened, nothing is asked of the kernel; tests compare plans as text."""

from __future__ import annotations

from cloison.errors import InvalidArgument, Unsupported
from cloison.model.record import Record
from cloison.runtime import process, rootfs
from cloison.runtime.facts import HostFacts
from cloison.runtime.monitor import NO_MONITOR, MonitorPlan, plan_monitor, plan_stdio
from cloison.runtime.plan import Op, op
from cloison.runtime.process import UNCONFINED, Filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.linux.cgroup_layout import Layout
    from cloison.linux.cgroups import Placement
    from cloison.model.container import Stdio
    from cloison.model.mount import IdMapping, Mount
    from cloison.oci.runtime import Linux, Namespace, Process, Spec

_WORDS = {"mount": "mnt", "network": "net"}  # the kernel's names in /proc/PID/ns where the specification has others
_TYPES = frozenset(("mount", "pid", "network", "ipc", "uts", "cgroup", "user", "time"))
_JOINED = ("mnt", "net", "ipc", "uts", "cgroup")


class Surroundings(Record):
    """What the engine has prepared for a container outside of it."""

    placement: Placement  # its cgroups
    placed_late: bool = False  # they are being made: wait for `Session.proceed` before anybody is put into them
    staging: str  # an empty directory of the host where its root is mounted, in its own mount namespace only
    layout: Layout | None = None  # of the host's cgroups, to show the container its own
    facts: HostFacts = HostFacts()
    monitor: MonitorPlan = NO_MONITOR
    seccomp: Filter = UNCONFINED
    configure_network: bool = False  # hand a netlink socket of the new network namespace to client 0 and wait
    hand_netlink: bool = False  # hand such a socket out, whosever the namespace is, and do not wait
    keyring: str = ""  # name of its session keyring: the container's id
    preserve: tuple[int, ...] = ()  # descriptors of ours that the command gets under the same numbers
    console: int = -1  # a stream socket that takes the terminal's master; -1 leaves it to the monitor


def plan_launch(spec: Spec, *, around: Surroundings, stdio: Stdio) -> tuple[Op, ...]:
    """Every operation of one container's start, in order.

    Raises: InvalidArgument (the spec contradicts itself), Unsupported, Denied (a right that we do not have ourselves).
    """
    namespaces = _namespaces(spec.linux.namespaces)
    _check(spec, namespaces, around)
    monitor = around.monitor
    if around.configure_network:
        monitor = monitor.replace(await_start="client")
    return (
        *plan_stdio(stdio),
        *_before_clone(spec.linux, namespaces, around),
        *_beside_child(spec.linux, namespaces, around),
        *process.plan_oom_score(spec.process, facts=around.facts),
        *_enter(spec.linux, namespaces, around),
        *_file_systems(spec, namespaces, around),
        *_terminal(spec.process, around.console),
        *process.plan_machine(spec.linux),
        *process.plan_command(
            spec.process, facts=_rights(around.facts, namespaces), seccomp=around.seccomp,
            monitor=monitor, init=spec.init, preserve=around.preserve,
        ),
        *plan_monitor(monitor, stdio=stdio, placement=around.placement),
    )  # fmt: skip


def _namespaces(namespaces: Sequence[Namespace]) -> dict[str, str]:
    """Type -> path to join, "" for a new one; what is absent stays the host's."""
    found: dict[str, str] = {}
    for namespace in namespaces:
        if namespace.type not in _TYPES:
            raise InvalidArgument(f"unknown namespace type {namespace.type!r}")
        if namespace.type in found:
            raise InvalidArgument(f"namespace {namespace.type} is given twice")  # runtime-spec: MUST generate an error
        found[namespace.type] = namespace.path
    return found


def _check(spec: Spec, namespaces: dict[str, str], around: Surroundings) -> None:
    if "mount" not in namespaces:
        raise InvalidArgument("a container needs a mount namespace: its own, or another's")
    if (spec.hostname or spec.domainname) and "uts" not in namespaces:
        raise InvalidArgument("cannot set the hostname", why="the container shares the host's UTS namespace")
    if "time" in namespaces and not around.facts.has_time_namespace:
        raise Unsupported("this kernel has no time namespaces", hint="they came with Linux 5.6 (CONFIG_TIME_NS)")
    if around.configure_network and namespaces.get("network") != "":
        raise InvalidArgument("only a new network namespace can be configured")
    if _new_user(namespaces) and not spec.linux.uid_mappings:
        raise InvalidArgument("a new user namespace needs id mappings")


def _new_user(namespaces: dict[str, str]) -> bool:
    return namespaces.get("user") == ""


def _makes_network(namespaces: dict[str, str]) -> bool:
    """Whether the launcher does, beside the child; the namespace belongs to the user namespace of its maker.

    A child that is placed early waits for the launcher first, so there is nothing to do beside.
    """
    return namespaces.get("network") == "" and not _places_early(namespaces)


def _places_early(namespaces: dict[str, str]) -> bool:
    """Whether it enters its groups first of all: while it may open their files, and sees them."""
    return "user" in namespaces or namespaces["mount"] != ""


def _rights(facts: HostFacts, namespaces: dict[str, str]) -> HostFacts:
    """Inside a user namespace of its own the child has every capability, over that namespace (user_namespaces(7))."""
    if "user" not in namespaces:
        return facts
    return facts.replace(permitted=(2 << facts.last_capability) - 1)


def _before_clone(linux: Linux, namespaces: dict[str, str], around: Surroundings) -> tuple[Op, ...]:
    # A cgroup namespace is rooted where its maker is, so it is made later, by the child, once that is in its cgroup; a
    # child of clone3(CLONE_INTO_CGROUP | CLONE_NEWCGROUP) would see the parent's (kernel/cgroup/namespace.c).
    later = ("cgroup", "time", "network") if _makes_network(namespaces) else ("cgroup", "time")
    new = [kind for kind, path in namespaces.items() if not path and kind not in later]
    ops = [op("new-namespaces", *(_WORDS.get(kind, kind) for kind in new))]
    if namespaces.get("time") == "":
        ops.append(op("time-namespace", *_offsets(linux, "monotonic"), *_offsets(linux, "boottime")))
    if namespaces.get("pid"):
        ops.append(op("join-pid-namespace", namespaces["pid"]))
    if around.placement.into:
        ops.append(op("cgroup-fd", around.placement.into))
    return (*ops, *(op("enter-namespace", path, kind) for kind, path in _entered(namespaces)))


def _entered(namespaces: dict[str, str]) -> list[tuple[str, str]]:
    """What a child in another user namespace could not join: those that do not belong to it. The launcher can, before.

    (word of the kernel, path); the user namespace last, for it takes the launcher's own rights.
    """
    if "user" not in namespaces:
        return []
    kinds = [kind for kind, path in namespaces.items() if path and kind not in ("pid", "user", "mount")]
    return [(_WORDS.get(kind, kind), namespaces[kind]) for kind in (*kinds, *(("user",) if namespaces["user"] else ()))]


def _offsets(linux: Linux, clock: str) -> tuple[int, int]:
    return linux.time_offsets.get(clock, (0, 0))


def _beside_child(linux: Linux, namespaces: dict[str, str], around: Surroundings) -> tuple[Op, ...]:
    """What the launcher does while the child mounts. A network namespace takes half a millisecond."""
    ops = [op("new-network")] if _makes_network(namespaces) else []
    if _new_user(namespaces):
        if around.facts.uid:  # who is not root may map a group only where groups cannot be dropped (user_namespaces(7))
            ops.append(op("setgroups-deny"))
        ops += [op("uid-map", id_map(linux.uid_mappings)), op("gid-map", id_map(linux.gid_mappings))]
    if around.placed_late:
        ops.append(op("await-client"))
    return tuple(ops)


def id_map(mappings: Sequence[IdMapping]) -> str:
    """As the kernel reads it: one line a range."""
    return "".join(f"{m.container_id} {m.host_id} {m.size}\n" for m in mappings)


def _enter(linux: Linux, namespaces: dict[str, str], around: Surroundings) -> tuple[Op, ...]:
    """The child's first steps: identity in a user namespace, namespaces of others, network."""
    ops: list[Op] = []
    if _new_user(namespaces) or (around.placed_late and _places_early(namespaces)):
        ops.append(op("await-parent"))
    if _places_early(namespaces):
        ops += _join_groups(around.placement)
    if "user" in namespaces:
        ops.append(op("become", 0, 0))
    entered = [path for _kind, path in _entered(namespaces)]
    for kind, path in namespaces.items():
        if path and kind != "pid" and path not in entered:
            ops.append(op("join-namespace", path, _WORDS.get(kind, kind)))
    if namespaces.get("network") == "":
        if not _makes_network(namespaces):
            ops.append(op("loopback-up"))
        elif around.configure_network or around.hand_netlink:
            ops.append(op("join-network"))
        if around.configure_network:
            # The link to come has IPv4 alone: without this it would give itself an IPv6 address, and believe whatever a
            # neighbour advertises (CVE-2020-13401). Before the caller can make the link; lo is older and keeps ::1.
            if around.facts.has_ipv6:
                ops.append(op("sysctl", "net.ipv6.conf.default.disable_ipv6", 1))
            ops.append(op("send-netlink"))  # early: the caller works on it while we mount
    if around.hand_netlink:
        ops.append(op("send-netlink"))
    if around.keyring:
        ops.append(op("keyring", around.keyring))
    return tuple(ops)


def _file_systems(spec: Spec, namespaces: dict[str, str], around: Surroundings) -> tuple[Op, ...]:
    early, late = rootfs.split_at_cgroup(spec.mounts)
    propagation, is_own = spec.linux.rootfs_propagation, not namespaces["mount"]
    mounts = [rootfs.plan_mount(mount) for mount in early]
    if _makes_network(namespaces) and not (around.configure_network or around.hand_netlink):
        mounts.insert(_first_tied_to_network(early), op("join-network"))
    return (
        *((rootfs.plan_propagation(spec.mounts),) if is_own else ()),
        rootfs.plan_root(spec.root, staging=around.staging),
        *mounts,
        *rootfs.plan_devices(spec.linux.devices, root=spec.root, mounts=spec.mounts),
        *((op("console"),) if spec.process.terminal else ()),
        *((op("hostname", spec.hostname),) if spec.hostname else ()),
        *((op("domainname", spec.domainname),) if spec.domainname else ()),
        *(op("sysctl", key, value) for key, value in spec.linux.sysctl.items()),
        *rootfs.plan_paths(spec.linux),
        *_cgroup_view(late, spec=spec, namespaces=namespaces, around=around),
        *((op("directory", spec.process.cwd, "755"),) if spec.process.cwd != "/" else ()),
        *((op("readonly-root"),) if spec.root.readonly else ()),
        *((op("await-start", "client"),) if around.monitor.pause_for_hooks else ()),
        op("pivot-root") if is_own else op("change-root", -1),
        *((op("propagation", "/", propagation),) if propagation not in ("", "private", "rprivate") else ()),
        *rootfs.plan_peers(spec.mounts),
    )


def _first_tied_to_network(mounts: Sequence[Mount]) -> int:
    """Where the mounts begin that show, or use, the network namespace of who mounts them: sysfs, file servers."""
    free = ("proc", "tmpfs", "devpts", "mqueue", "bind")
    return next((index for index, mount in enumerate(mounts) if mount.type not in free), len(mounts))


def _cgroup_view(
    mounts: Sequence[Mount], *, spec: Spec, namespaces: dict[str, str], around: Surroundings
) -> tuple[Op, ...]:
    """Last of the mounts: only now the limits count what is done, and the caller has had the time to set them."""
    ops: list[Op] = []
    if not _places_early(namespaces):
        ops += (*((op("await-parent"),) if around.placed_late else ()), *_join_groups(around.placement))
    if namespaces.get("cgroup") == "":
        ops.append(op("unshare", "cgroup"))
    hierarchies = _hierarchies(around)
    groups = () if "cgroup" in namespaces else _groups(around.placement)
    for mount in mounts:
        if mount.type in ("cgroup", "cgroup2"):
            ops += rootfs.plan_cgroup_mount(mount, hierarchies=hierarchies, groups=groups)
        else:
            ops.append(rootfs.plan_mount(mount))
    return tuple(ops)


def _join_groups(placement: Placement) -> tuple[Op, ...]:
    return tuple([op("cgroup-join", directory) for directory in placement.join])


def _groups(placement: Placement) -> tuple[str, ...]:
    return (*placement.join, placement.into) if placement.into else placement.join


def _hierarchies(around: Surroundings) -> tuple[tuple[str, str], ...]:
    """Where the container is placed, as `rootfs.plan_cgroup_mount` wants it."""
    layout, placement = around.layout, around.placement
    if layout is None:
        return ()
    found: dict[str, list[str]] = {}
    for controller, mountpoint in layout.legacy.items():
        if any(directory.startswith(f"{mountpoint}/") for directory in placement.join):
            found.setdefault(mountpoint, []).append(controller)
    legacy = [(mountpoint, ",".join(controllers)) for mountpoint, controllers in found.items()]
    inside = placement.into or next((d for d in placement.join if _within(d, layout.unified)), "")
    return (*legacy, (layout.unified, "")) if inside and layout.unified else tuple(legacy)


def _within(directory: str, mountpoint: str) -> bool:
    return bool(mountpoint) and directory.startswith(f"{mountpoint}/")


def _terminal(command: Process, console: int) -> tuple[Op, ...]:
    return (op("terminal", *command.console_size, console),) if command.terminal else ()


def plan_exec(
    command: Process, *, pidfd: int, placement: Placement, stdio: Stdio, facts: HostFacts,
    monitor: MonitorPlan = NO_MONITOR, seccomp: Filter = UNCONFINED, keyring: str = "", user_namespace: bool = False,
    console: int = -1, preserve: Sequence[int] = (), machine: tuple[Op, ...] = (), file: str = "",
    shared: Sequence[str] = (), root: int = -1,
) -> tuple[Op, ...]:  # fmt: skip
    """One more command in the container whose first process is ``pidfd``, with the same walls around it.

    Every namespace of that process is joined, also those it shares with the host: joining one's own changes nothing.
    The user namespace alone cannot be joined twice (setns(2), EINVAL), so it must be told. ``machine``: the container's
    `process.plan_machine`. ``file``: what is executed, when it is not the first argument. ``shared``: those of its
    namespaces that are our own: who is not root may not join them (and cannot join the others, but from the inside of
    the container's user namespace). ``root``: a descriptor of its root, where that is not its mount namespace's.
    """
    cpus = command.exec_cpus
    enters = user_namespace and facts.uid != 0
    kinds = (*_JOINED, *(("time",) if facts.has_time_namespace else ()), *(("user",) if user_namespace else ()))
    kinds = tuple(kind for kind in kinds if kind not in shared and not (enters and kind == "user"))
    rights = _rights(facts, {"user": ""} if user_namespace else {})
    return (
        *plan_stdio(stdio),
        op("new-namespaces"),
        *((op("enter-namespace", pidfd, "user"),) if enters else ()),
        *(() if "pid" in shared else (op("join-pid-namespace", pidfd),)),
        *((op("initial-affinity", *cpus.initial),) if cpus.initial else ()),
        *((op("cgroup-fd", placement.into),) if placement.into else ()),
        *process.plan_oom_score(command, facts=facts),
        *_join_groups(placement),
        op("join-namespaces", pidfd, *kinds),
        *((op("change-root", root),) if root >= 0 else ()),
        *((op("keyring", keyring),) if keyring else ()),
        *_terminal(command, console),
        *((op("affinity", *cpus.final),) if cpus.final else ()),
        *machine,
        *process.plan_command(command, facts=rights, seccomp=seccomp, monitor=monitor, preserve=preserve, file=file),
        *plan_monitor(monitor, stdio=stdio, placement=placement),
    )
