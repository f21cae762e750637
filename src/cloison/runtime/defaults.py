"""What a container is given when nobody asks for anything else: the policy, as data, and the few rules that bend it.

Stricter than Docker where that breaks nothing in practice: fewer capabilities, more masked files, bounded tmpfs,
bounded processes. ``privileged`` takes the walls of policy away, never the namespaces.
"""

from __future__ import annotations

from cloison.errors import Denied, InvalidArgument
from cloison.linux.capabilities import ALL, CAPABILITIES, mask_of, names_in, normalise
from cloison.model.mount import Mount
from cloison.oci.runtime import Capabilities, Device, DeviceRule, Namespace, Rlimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloison.model.container import Ulimit
    from cloison.runtime.facts import HostFacts

PIDS_LIMIT = 4096
SHM_SIZE_BYTES = 64 << 20

# Docker's 14 without MKNOD, NET_RAW (ping works by ping_group_range) and AUDIT_WRITE: Podman's set.
CAPABILITY_NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETFCAP",
    "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
)  # fmt: skip

# What Docker and Podman mask, what systemd-nspawn adds, and what lets a container's root read the kernel's addresses or
# other people's memory statistics. A path that this kernel does not have costs one failed lookup.
MASKED_PATHS = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kallsyms", "/proc/kcore", "/proc/keys",
    "/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags", "/proc/latency_stats", "/proc/sched_debug",
    "/proc/scsi", "/proc/slabinfo", "/proc/sysrq-trigger", "/proc/timer_list", "/proc/timer_stats",
    "/proc/vmallocinfo", "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/selinux",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys")

# (path, major, minor); console, ptmx and the links come with /dev itself.
_DEVICES = (
    ("/dev/null", 1, 3), ("/dev/zero", 1, 5), ("/dev/full", 1, 7), ("/dev/random", 1, 8), ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)  # fmt: skip
_PTMX = (5, 2)
_PTS_MAJOR = 136

# RLIMIT name without prefix -> (soft, hard), -1 is unlimited. All sixteen, so that nothing of the caller's shines
# through; what we may not raise is clamped to the caller's (`process.plan_rlimits`).
_RLIMITS = {
    "CPU": (-1, -1), "FSIZE": (-1, -1), "DATA": (-1, -1), "STACK": (8 << 20, -1),
    "CORE": (0, 0),  # a core handler runs on the host, as root, fed by the container (CVE-2025-4598)
    "RSS": (-1, -1),
    "NPROC": (-1, -1),  # counted per uid of the host, so one container would starve another: pids.max is the limit
    "NOFILE": (1024, 524288),  # systemd's: programs that select(2) or close every descriptor stay well
    "MEMLOCK": (64 << 10, 64 << 10), "AS": (-1, -1), "LOCKS": (-1, -1), "SIGPENDING": (65536, 65536),
    "MSGQUEUE": (819200, 819200), "NICE": (0, 0), "RTPRIO": (0, 0), "RTTIME": (-1, -1),
}  # fmt: skip


def capabilities(
    *, facts: HostFacts, privileged: bool = False, add: Sequence[str] = (), drop: Sequence[str] = (), uid: int = 0
) -> Capabilities:
    """Docker's rules: ``--privileged`` is everything; ``drop ALL`` then ``add``; ``add ALL`` then ``drop``.

    Inheritable and ambient are always empty. For a command that is not root effective and permitted are empty too, as
    the kernel would leave them; the bounding set stays, for programs with file capabilities. Raises: InvalidArgument
    (unknown name), Denied (we do not have a capability that was asked for by name).
    """
    added, dropped = {normalise(name) for name in add}, {normalise(name) for name in drop}
    if privileged or ALL in added:
        names = set(names_in(facts.permitted))
    else:
        names = set() if ALL in dropped else set(names_in(mask_of(CAPABILITY_NAMES) & facts.permitted))
    if not privileged:
        names = (names - dropped) | (added - {ALL})
    missing = names_in(mask_of(names) & ~facts.permitted)
    if missing:
        raise Denied(
            f"cannot add {missing[0]} to the container",
            why="this process does not have it itself",
            hint="run cloison with that capability, or leave it out of --cap-add",
        )
    granted = tuple(name for name in CAPABILITIES if name in names)
    held = granted if uid == 0 else ()
    return Capabilities(bounding=granted, effective=held, permitted=held)


_NOTHING = ("nosuid", "noexec", "nodev")


def mounts(
    *, shm_size_bytes: int = SHM_SIZE_BYTES, privileged: bool = False, host_ipc: bool = False, shm_source: str = ""
) -> tuple[Mount, ...]:
    """The file systems of every container, in order; the user's mounts come after them.

    ``shm_source``: bind this directory as /dev/shm (another container's, with its IPC namespace). ``host_ipc``: the
    host's /dev/shm and message queues.
    """
    access = () if privileged else ("ro",)
    return (
        Mount(type="proc", source="proc", target="/proc", options=_NOTHING),
        # device nodes take no pages: one MiB is for what programs drop there by mistake
        Mount(type="tmpfs", source="tmpfs", target="/dev", options=("nosuid", "mode=755", "size=1m", "nr_inodes=4096")),
        Mount(type="devpts", source="devpts", target="/dev/pts", options=_PTS_OPTIONS),
        _shm(shm_size_bytes, "/dev/shm" if host_ipc else shm_source),
        _mqueue(host_ipc),
        Mount(type="sysfs", source="sysfs", target="/sys", options=(*_NOTHING, *access)),
        Mount(type="cgroup", source="cgroup", target="/sys/fs/cgroup", options=(*_NOTHING, *access)),
    )


# max: ptys are one pool for the whole machine (kernel.pty.max 4096)
_PTS_OPTIONS = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5", "max=1024")


def _shm(size_bytes: int, source: str) -> Mount:
    if source:
        return Mount(type="bind", source=source, target="/dev/shm", options=("rbind", *_NOTHING))
    inodes = max(1024, size_bytes >> 12)  # an empty file takes kernel memory that the size does not count
    options = (*_NOTHING, "mode=1777", f"size={size_bytes}", f"nr_inodes={inodes}")
    return Mount(type="tmpfs", source="shm", target="/dev/shm", options=options)


def _mqueue(host_ipc: bool) -> Mount:
    if host_ipc:
        return Mount(type="bind", source="/dev/mqueue", target="/dev/mqueue", options=("bind", *_NOTHING))
    return Mount(type="mqueue", source="mqueue", target="/dev/mqueue", options=_NOTHING)


def read_only_mounts() -> tuple[Mount, ...]:
    """Writable places of a container whose root is read-only: /run, /tmp, /var/tmp (Podman's ``--read-only-tmpfs``)."""
    options = ("nosuid", "nodev", "mode=1777", "size=64m", "nr_inodes=16384")
    run = (*options[:2], "mode=755", *options[3:])
    return (
        Mount(type="tmpfs", source="tmpfs", target="/run", options=run),
        Mount(type="tmpfs", source="tmpfs", target="/tmp", options=options),
        Mount(type="tmpfs", source="tmpfs", target="/var/tmp", options=options),
    )


def devices() -> tuple[Device, ...]:
    return tuple(Device(path=path, type="c", major=major, minor=minor) for path, major, minor in _DEVICES)


def device_rules(*, privileged: bool = False) -> tuple[DeviceRule, ...]:
    """The device cgroup: nothing, then the default nodes and the terminals; privileged containers may use all."""
    if privileged:
        return (DeviceRule(allow=True),)
    allowed = (*((major, minor) for _path, major, minor in _DEVICES), _PTMX)
    return (
        DeviceRule(allow=False),
        *(DeviceRule(allow=True, type="c", major=major, minor=minor) for major, minor in allowed),
        DeviceRule(allow=True, type="c", major=_PTS_MAJOR),
    )


def masked_paths(*, facts: HostFacts, privileged: bool = False, unmask: bool = False) -> tuple[str, ...]:
    """``unmask``: ``--security-opt systempaths=unconfined``. The counters of each CPU tell what its neighbours do
    (GHSA-6fw5-f8r9-fgfm); only machines that have them get the long list."""
    if privileged or unmask:
        return ()
    throttled = (f"/sys/devices/system/cpu/{cpu}/thermal_throttle" for cpu in facts.throttled_cpus)
    return (*MASKED_PATHS, *throttled)


def readonly_paths(*, privileged: bool = False, unmask: bool = False) -> tuple[str, ...]:
    return () if privileged or unmask else READONLY_PATHS


def rlimits(ulimits: Iterable[Ulimit] = ()) -> tuple[Rlimit, ...]:
    """All sixteen limits, the user's in place of ours. Raises: InvalidArgument in Docker's words."""
    limits = dict(_RLIMITS)
    for ulimit in ulimits:
        name = ulimit.name.upper()
        if name not in limits:
            raise InvalidArgument(f"invalid ulimit type: {ulimit.name}")
        if ulimit.hard != -1 and (ulimit.soft == -1 or ulimit.soft > ulimit.hard):
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {ulimit.soft} > {ulimit.hard}"
            )
        limits[name] = (ulimit.soft, ulimit.hard)
    return tuple(Rlimit(type=f"RLIMIT_{name}", soft=soft, hard=hard) for name, (soft, hard) in limits.items())


def namespaces(
    *, facts: HostFacts, network: str = "", pid: str = "", ipc: str = "", uts: str = "", time: str = ""
) -> tuple[Namespace, ...]:
    """For each kind "" makes a new one, "host" shares the host's, and a path joins that one.

    Mounts and cgroups are always the container's own. A time namespace has offsets of zero: it only keeps the container
    from sharing one with the host.
    """
    wanted = {"pid": pid, "network": network, "ipc": ipc, "uts": uts}
    if facts.has_time_namespace:
        wanted["time"] = time
    kinds = {kind: place for kind, place in wanted.items() if place != "host"}
    always = (Namespace(type="mount"), Namespace(type="cgroup"))
    return (*always, *(Namespace(type=kind, path=place) for kind, place in kinds.items()))
