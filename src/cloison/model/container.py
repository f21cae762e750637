"""The nouns of a container.

What was asked for (ContainerSpec) and what became of it (ContainerRecord, ContainerState).
"""

from __future__ import annotations

from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar

DEFAULT_STOP_TIMEOUT_S = 10


class PortMapping(Record):
    """One published port (``-p``)."""

    container_port: int
    protocol: str = "tcp"  # tcp, udp, sctp
    host_address: str = ""  # "" is every address
    host_port: int = 0  # 0 is "choose one"


class DeviceRequest(Record):
    """One host device made available inside (``--device``)."""

    source: str
    target: str
    access: str = "rwm"


class Ulimit(Record):
    name: str  # without RLIMIT_, lower case, as in docker
    soft: int  # -1 is unlimited
    hard: int


class DeviceRate(Record):
    """A limit on one block device (``--device-read-bps`` and its sisters)."""

    path: str
    rate: int  # bytes/s or operations/s


class ControlValue(Record):
    """A value for a control file that no other limit knows; "" where a version has no such file."""

    controller: str  # by its version 1 name
    v1: str = ""
    v2: str = ""
    value: str


class Resources(Record):
    """Limits of a container, one field a knob; None leaves the kernel's default."""

    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None  # memory + swap, as Docker counts; -1 is unlimited
    memory_reservation_bytes: int | None = None
    cpu_shares: int | None = None  # cgroup v1 scale, 2..262144
    cpu_quota_us: int | None = None
    cpu_period_us: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None  # -1 is unlimited
    blkio_weight: int | None = None  # 10..1000
    read_bps: tuple[DeviceRate, ...] = ()
    write_bps: tuple[DeviceRate, ...] = ()
    read_iops: tuple[DeviceRate, ...] = ()
    write_iops: tuple[DeviceRate, ...] = ()
    oom_score_adj: int = 0
    values: tuple[ControlValue, ...] = ()

    NESTED: ClassVar[Mapping[str, Any]] = {
        "read_bps": DeviceRate, "write_bps": DeviceRate, "read_iops": DeviceRate, "write_iops": DeviceRate,
        "values": ControlValue,
    }  # fmt: skip


class MountRequest(Record):
    """One ``-v``, ``--mount`` or ``--tmpfs`` as the user said it."""

    type: str  # bind, volume, tmpfs
    target: str
    source: str = ""  # host path, or volume name; "" is an anonymous volume
    read_only: bool = False
    create_source: bool = False  # -v makes a missing host directory, --mount does not
    propagation: str = ""  # "" is rprivate
    recursive: bool = True  # what is mounted below the source comes along
    writable_below: bool = False  # a read-only mount leaves what is mounted below it as it is
    options: tuple[str, ...] = ()  # for tmpfs: size=, mode= …


class ContainerSpec(Record):
    """Everything a user can ask of a container; nothing here has been checked against the machine or the image."""

    image: str
    command: tuple[str, ...] = ()  # replaces the image's Cmd
    entrypoint: tuple[str, ...] | None = None  # None keeps the image's, () clears it
    name: str = ""
    hostname: str = ""
    domainname: str = ""
    env: tuple[str, ...] = ()  # "K=V"; a bare "K" removes what the image sets (the door has imported it already)
    workdir: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    tty: bool = False
    interactive: bool = False  # keep stdin open
    auto_remove: bool = False
    init: bool = False
    read_only: bool = False
    privileged: bool = False
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    mounts: tuple[MountRequest, ...] = ()
    resources: Resources = Resources()
    devices: tuple[DeviceRequest, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = True
    seccomp: str = "default"  # default, unconfined, or the text of a profile in Docker's JSON format
    apparmor: str = ""  # name of a loaded profile; "" keeps ours, unconfined leaves it
    unmask: bool = False  # --security-opt systempaths=unconfined
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: Mapping[str, str] = {}
    shm_size_bytes: int = 64 << 20
    network: str = "bridge"  # bridge, none, host, container:NAME
    ports: tuple[PortMapping, ...] = ()
    publish_all: bool = False
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()  # "name:address"
    pid_mode: str = ""  # "", host, container:NAME
    ipc_mode: str = ""
    uts_mode: str = ""  # "", host
    stop_signal: str = ""
    stop_timeout_s: int | None = None
    platform: str = ""
    pull: str = "missing"  # always, missing, never
    log_max_bytes: int = 10 << 20
    log_max_files: int = 3
    no_log: bool = False  # --log-driver none
    timeout_s: float | None = None

    NESTED: ClassVar[Mapping[str, Any]] = {
        "mounts": MountRequest, "resources": Resources, "devices": DeviceRequest, "ulimits": Ulimit,
        "ports": PortMapping,
    }  # fmt: skip


class ExecSpec(Record):
    """One command to run in a container that is running."""

    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    tty: bool = False
    interactive: bool = False
    privileged: bool = False


class Stdio(Record):
    """Where a command's streams go: each ``null``, ``pipe`` (through the monitor), ``pty`` or ``fd:N`` (handed over).

    A relay copies between a pipe and one of the caller's descriptors inside the monitor; -1 is none.
    """

    stdin: str = "null"
    stdout: str = "pipe"
    stderr: str = "pipe"
    relay_in: int = -1
    relay_out: int = -1
    relay_err: int = -1
    rows: int = 0
    columns: int = 0
    detached: bool = False  # the caller does not stay: the monitor cleans up


class ContainerState(Record):
    """What became of a container (Docker's ``State``)."""

    status: str = "created"  # created, running, paused, exited, dead, removing
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    reason: str = ""  # "", oom, timeout, killed, start-failed, monitor-lost
    error: str = ""
    started_ns: int = 0  # CLOCK_REALTIME; 0 is never
    finished_ns: int = 0
    memory_peak_bytes: int = 0
    user_us: int = 0
    system_us: int = 0


class Attachment(Record):
    """A container's place on a network, leased and recorded."""

    network: str
    address: str = ""  # IPv4, without prefix
    prefix: int = 0
    gateway: str = ""
    mac: str = ""
    host_link: str = ""
    ports: tuple[PortMapping, ...] = ()  # every host_port filled in

    NESTED: ClassVar[Mapping[str, Any]] = {"ports": PortMapping}


class ContainerRecord(Record):
    """A container as it stands on disk: identity, what was asked, and what the image said."""

    id: str  # 64 hex digits
    name: str
    created_ns: int
    spec: ContainerSpec
    image_id: str  # digest of the image's config
    argv: tuple[str, ...]  # entrypoint and command, resolved
    env: tuple[str, ...]
    workdir: str
    user: str
    stop_signal: str
    layers: tuple[str, ...]  # chain IDs, base first
    volumes: tuple[str, ...] = ()  # targets of the image's anonymous volumes, removed with the container
    labels: Mapping[str, str] = {}
    exposed_ports: tuple[str, ...] = ()
    state: ContainerState = ContainerState()
    attachment: Attachment | None = None
    version: int = 1

    NESTED: ClassVar[Mapping[str, Any]] = {"spec": ContainerSpec, "state": ContainerState, "attachment": Attachment}
