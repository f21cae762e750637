"""The nouns of the OCI runtime specification (config.md, config-linux.md) that a launch needs.

The engine fills them in memory and the OCI door parses them from ``config.json``; the runtime room knows nothing else.
Names are the specification's, in Python's case. Lists are tuples, absent objects are None.
"""

from __future__ import annotations

from cloison.model.container import Resources
from cloison.model.mount import IdMapping, Mount
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar


class User(Record):
    uid: int = 0
    gid: int = 0
    umask: int = 0o022
    additional_gids: tuple[int, ...] = ()


class Rlimit(Record):
    type: str  # "RLIMIT_NOFILE"
    soft: int  # -1 is RLIM_INFINITY
    hard: int


class Capabilities(Record):
    """Names with ``CAP_``; all five sets are explicit, an empty set is empty."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Scheduler(Record):
    """What sched_setattr(2) takes."""

    policy: int
    nice: int = 0
    priority: int = 0
    flags: int = 0
    runtime_ns: int = 0
    deadline_ns: int = 0
    period_ns: int = 0


class ExecCpus(Record):
    """CPU numbers; empty leaves things as they are. For further processes alone, never the first."""

    initial: tuple[int, ...] = ()  # before it is in the container's control group
    final: tuple[int, ...] = ()  # once it is


class MemoryPolicy(Record):
    """What set_mempolicy(2) takes."""

    mode: int  # flags included
    nodes: tuple[int, ...] = ()


class Process(Record):
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    terminal: bool = False
    console_size: tuple[int, int] = (0, 0)  # rows, columns
    user: User = User()
    capabilities: Capabilities = Capabilities()
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = True
    oom_score_adj: int | None = None
    scheduler: Scheduler | None = None
    io_priority: int | None = None  # as ioprio_set(2) takes it
    exec_cpus: ExecCpus = ExecCpus()
    exec_labels: tuple[tuple[str, str], ...] = ()  # file below /proc/self/attr, what a security module reads there

    NESTED: ClassVar[Mapping[str, Any]] = {
        "user": User, "capabilities": Capabilities, "rlimits": Rlimit, "scheduler": Scheduler, "exec_cpus": ExecCpus,
    }  # fmt: skip


class Namespace(Record):
    type: str  # mount pid network ipc uts cgroup user time
    path: str = ""  # "" makes a new one; else /proc/PID/ns/… to join


class Device(Record):
    """A device node to make inside."""

    path: str
    type: str  # c, b, u, p
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    tree: int = -1  # descriptor of a detached mount of the node, which is then put there instead


class DeviceRule(Record):
    """One line of the device cgroup; None is "any"."""

    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


class NetDevice(Record):
    """A network device of the host that the container gets, and what it is called there."""

    name: str
    new_name: str


class Rdt(Record):
    """``intelRdt``: a class of service of the resctrl file system."""

    id: str = ""  # "" is one of its own, named like the container
    schemata: tuple[str, ...] = ()  # lines
    monitoring: bool = False  # a monitoring group of its own in it


class Linux(Record):
    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    time_offsets: Mapping[str, tuple[int, int]] = {}  # "monotonic" | "boottime" -> (s, ns)
    devices: tuple[Device, ...] = ()
    net_devices: tuple[NetDevice, ...] = ()
    rdt: Rdt | None = None
    device_rules: tuple[DeviceRule, ...] = ()  # resources.devices
    cgroups_path: str = ""  # below every hierarchy's root, no leading slash
    resources: Resources = Resources()
    rootfs_propagation: str = "private"
    seccomp: str = ""  # path of a compiled BPF program; "" is unconfined
    sysctl: Mapping[str, str] = {}
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    memory_policy: MemoryPolicy | None = None
    personality: int | None = None  # as personality(2) takes it

    NESTED: ClassVar[Mapping[str, Any]] = {
        "namespaces": Namespace, "uid_mappings": IdMapping, "gid_mappings": IdMapping, "devices": Device,
        "device_rules": DeviceRule, "resources": Resources, "memory_policy": MemoryPolicy, "net_devices": NetDevice,
        "rdt": Rdt,
    }  # fmt: skip


class Hook(Record):
    """A program of the host (or, for two kinds, of the container) that is told of a step by the state on its stdin."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout_s: int = 0  # 0 is none


class Hooks(Record):
    """By the step they belong to (config.md, "POSIX-platform Hooks")."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


class Root(Record):
    """Where ``/`` comes from: one overlay mount, or a directory (type "bind")."""

    mount: Mount
    readonly: bool = False
    dev_names: tuple[str, ...] | None = None  # ours: fill its own /dev, which has these names already

    NESTED: ClassVar[Mapping[str, Any]] = {"mount": Mount}


class Spec(Record):
    """One container as the runtime sees it (config.json)."""

    process: Process
    root: Root
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    linux: Linux = Linux()
    annotations: Mapping[str, str] = {}
    hooks: Hooks = Hooks()
    init: bool = False  # ours, not the specification's: a reaper as pid 1

    NESTED: ClassVar[Mapping[str, Any]] = {"process": Process, "root": Root, "mounts": Mount, "linux": Linux}
