"""From a container's record to the OCI Spec that the runtime consumes.

Image, user's words, defaults and host brought together.
"""

from __future__ import annotations

import os
import stat

from cloison.engine import hostfiles, users
from cloison.errors import Conflict, InvalidArgument, NotFound, Unsupported
from cloison.linux import proc
from cloison.model.container import PortMapping
from cloison.model.record import Record
from cloison.oci.runtime import Device, DeviceRule, Linux, Process, Root, Spec, User
from cloison.runtime import defaults, seccomp_cache, sysctls
from cloison.runtime.process import UNCONFINED, Filter
from cloison.snapshots.drivers import open_snapshots
from cloison.snapshots.lookup import read_small_file
from cloison.store.containers import ContainerStore
from cloison.volumes import mounts as volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.model.container import ContainerRecord, ContainerSpec, DeviceRequest, ExecSpec, Resources, Stdio
    from cloison.model.mount import Mount
    from cloison.model.settings import Settings
    from cloison.oci.runtime import Capabilities
    from cloison.runtime.facts import HostFacts

_ACCESS = frozenset("rwm")
# What the caller's container is made of may be shared with the host by name only; see security.md on --privileged.
_SHARED = ("", "host")
_MIN_MEMORY = 512 << 10  # below, the kernel kills the first process before it is the user's (Docker asks for 6 MB)


class Build(Record):
    """A Spec and the compiled filter that goes with it."""

    spec: Spec
    seccomp: Filter


class Neighbour(Record):
    """A running container whose namespaces are joined (``--network container:X``)."""

    id: str
    pid: int
    pid_started: int
    hostname: str

    def namespace(self, kind: str) -> str:
        return f"/proc/{self.pid}/ns/{kind}"


class Neighbours(Record):
    network: Neighbour | None = None
    pid: Neighbour | None = None


def find_neighbours(spec: ContainerSpec, *, settings: Settings) -> Neighbours:
    """Raises: NotFound, Conflict (not running), InvalidArgument (an unknown mode)."""
    return Neighbours(
        network=_neighbour(spec.network, settings=settings, known=("bridge", "none", "host"), flag="network"),
        pid=_neighbour(spec.pid_mode, settings=settings, known=_SHARED, flag="pid"),
    )


def _neighbour(mode: str, *, settings: Settings, known: tuple[str, ...], flag: str) -> Neighbour | None:
    if mode in known:
        return None
    if not mode.startswith("container:"):
        if flag == "network":
            raise NotFound(f"network {mode} not found", hint="bridge, none, host and container:NAME are there")
        raise InvalidArgument(f"invalid --{flag} mode: {mode!r}")
    store = ContainerStore(settings)
    container_id = store.resolve(mode.removeprefix("container:"))
    running = store.load_running(container_id)
    if running is None or not running.pid or not store.monitor_lives(container_id):
        raise Conflict(f"cannot join {flag} of container {container_id[:12]}", why="it is not running")
    name = hostname_of(store.load(container_id))
    return Neighbour(id=container_id, pid=running.pid, pid_started=running.pid_started, hostname=name)


def check_neighbours(neighbours: Neighbours) -> None:
    """After the start: whoever was joined by pid must still be who it was, or the pid was another's meanwhile (U6)."""
    for neighbour in (neighbours.network, neighbours.pid):
        if neighbour is not None and not proc.is_alive(neighbour.pid, neighbour.pid_started):
            raise Conflict(f"container {neighbour.id[:12]} ended while its namespace was being joined")


def hostname_of(record: ContainerRecord, neighbours: Neighbours | None = None) -> str:
    """The container's own, the host's when it shares that, or that of the container whose network it joins."""
    if neighbours is not None and neighbours.network is not None and not record.spec.hostname:
        return neighbours.network.hostname
    if record.spec.uts_mode == "host" or record.spec.network == "host":
        return record.spec.hostname or os.uname().nodename
    return record.spec.hostname or record.id[:12]


def published_ports(record: ContainerRecord) -> tuple[PortMapping, ...]:
    """``-p``, and with ``-P`` every exposed port on a free one."""
    ports = record.spec.ports
    if not record.spec.publish_all:
        return ports
    taken = {(port.container_port, port.protocol) for port in ports}
    exposed = []
    for text in record.exposed_ports:
        number, _, protocol = text.partition("/")
        if users.is_number(number) and (int(number), protocol or "tcp") not in taken:
            exposed.append(PortMapping(container_port=int(number), protocol=protocol or "tcp"))
    return (*ports, *exposed)


def build_spec(
    record: ContainerRecord, *, root: Mount, settings: Settings, facts: HostFacts, neighbours: Neighbours, stdio: Stdio,
    host_files: str,
) -> Build:  # fmt: skip
    """Raises: InvalidArgument, NotFound (device, bind source), Denied (capability, sysctl)."""
    spec = record.spec
    identity = _identity(record, settings=settings)
    hostname = hostname_of(record, neighbours)
    capabilities = _capabilities(spec, facts=facts, uid=identity.uid)
    devices, rules = _devices(spec)
    linux = Linux(
        namespaces=defaults.namespaces(
            facts=facts,
            network=_place(spec.network, neighbours.network, "net"),
            pid=_place(spec.pid_mode, neighbours.pid, "pid"),
            ipc=_ipc(spec.ipc_mode),
            uts="host" if spec.uts_mode == "host" else "",
        ),
        devices=devices,
        device_rules=rules,
        resources=_resources(spec.resources),
        sysctl=sysctls.plan_sysctls(
            spec.sysctls, own_network=spec.network in ("bridge", "none"), own_ipc=spec.ipc_mode != "host"
        ),
        masked_paths=defaults.masked_paths(facts=facts, privileged=spec.privileged, unmask=spec.unmask),
        readonly_paths=defaults.readonly_paths(privileged=spec.privileged, unmask=spec.unmask),
    )
    oci = Spec(
        process=Process(
            args=record.argv,
            env=_environment(record, identity, hostname=hostname),
            cwd=os.path.normpath(record.workdir) if record.workdir.startswith("/") else f"/{record.workdir}",
            terminal=spec.tty,
            console_size=(stdio.rows, stdio.columns),
            user=User(uid=identity.uid, gid=identity.gid, additional_gids=identity.additional_gids),
            capabilities=capabilities,
            rlimits=defaults.rlimits(spec.ulimits),
            no_new_privileges=spec.no_new_privileges and not spec.privileged,
            oom_score_adj=spec.resources.oom_score_adj,
            exec_labels=_exec_labels(spec),
        ),
        root=Root(mount=root, readonly=spec.read_only),
        hostname="" if spec.uts_mode == "host" else hostname,
        domainname=spec.domainname,
        mounts=_mounts(record, settings=settings, host_files=host_files, neighbours=neighbours),
        linux=linux,
        init=spec.init,
    )
    return Build(spec=oci, seccomp=_filter(spec, capabilities, settings=settings))


def build_exec(
    record: ContainerRecord, spec: ExecSpec, *, settings: Settings, facts: HostFacts, stdio: Stdio
) -> tuple[Process, Filter]:
    """The process of an exec and its filter: the container's walls, the caller's words."""
    from cloison.engine.creating import merge_env

    base = record.replace(env=merge_env(record.env, spec.env), user=spec.user or record.user)
    identity = _identity(base, settings=settings, groups=() if spec.user else record.spec.groups)
    rights = record.spec.replace(privileged=record.spec.privileged or spec.privileged)
    if spec.privileged and rights.apparmor:
        rights = rights.replace(apparmor="unconfined")
    capabilities = _capabilities(rights, facts=facts, uid=identity.uid)
    process = Process(
        args=spec.command,
        env=_environment(base.replace(spec=base.spec.replace(tty=spec.tty)), identity, hostname=hostname_of(record)),
        cwd=spec.workdir or record.workdir,
        terminal=spec.tty,
        console_size=(stdio.rows, stdio.columns),
        user=User(uid=identity.uid, gid=identity.gid, additional_gids=identity.additional_gids),
        capabilities=capabilities,
        rlimits=defaults.rlimits(record.spec.ulimits),
        no_new_privileges=rights.no_new_privileges and not rights.privileged,
        oom_score_adj=record.spec.resources.oom_score_adj,
        exec_labels=_exec_labels(rights),
    )
    return process, _filter(rights, capabilities, settings=settings)


def _identity(record: ContainerRecord, *, settings: Settings, groups: tuple[str, ...] | None = None) -> users.Identity:
    directories = open_snapshots(settings).directories_of(record.id, record.layers)
    return users.resolve_user(
        record.user,
        record.spec.groups if groups is None else groups,
        passwd=read_small_file(directories, "/etc/passwd"),
        group=read_small_file(directories, "/etc/group"),
    )


def _capabilities(spec: ContainerSpec, *, facts: HostFacts, uid: int) -> Capabilities:
    return defaults.capabilities(facts=facts, privileged=spec.privileged, add=spec.cap_add, drop=spec.cap_drop, uid=uid)


def _filter(spec: ContainerSpec, capabilities: Capabilities, *, settings: Settings) -> Filter:
    if spec.privileged or spec.seccomp == "unconfined":
        return UNCONFINED
    from cloison.linux.capabilities import mask_of

    directory = f"{settings.data_root}/cache/seccomp"
    mask = mask_of(capabilities.bounding)
    if spec.seccomp == "default":
        path, flags = seccomp_cache.default_filter(directory, capabilities_mask=mask), 0
    else:
        path = seccomp_cache.custom_filter(directory, profile_text=spec.seccomp, capabilities_mask=mask)
        flags = _flags(spec.seccomp)
    with open(path, "rb") as file:
        return Filter(program=file.read(), flags=flags)


def _exec_labels(spec: ContainerSpec) -> tuple[tuple[str, str], ...]:
    """Raises: Unsupported where a profile would confine nothing; docker passes over it, runc does not."""
    if not spec.apparmor:
        return ()
    from cloison.runtime.labels import apparmor_label, read_modules

    modules = read_modules()
    if not modules.apparmor and spec.apparmor != "unconfined":
        raise Unsupported(
            f"cannot apply the AppArmor profile {spec.apparmor!r}", why="this kernel runs without AppArmor",
            hint="leave --security-opt apparmor=… out, or boot with the kernel's words apparmor=1 security=apparmor",
        )  # fmt: skip
    return apparmor_label(spec.apparmor, modules)


def _flags(profile: str) -> int:
    from cloison.linux.seccomp_flags import NEW_LISTENER, filter_flags
    from cloison.store.json import loads

    flags = filter_flags(loads(profile))
    if flags & NEW_LISTENER:
        raise Unsupported("cannot use this seccomp profile", why="SCMP_ACT_NOTIFY needs an agent outside")
    return flags


def _environment(record: ContainerRecord, identity: users.Identity, *, hostname: str) -> tuple[str, ...]:
    """Docker's order: PATH, HOSTNAME, TERM with a terminal, the image's and the user's words, HOME last."""
    given = {word.partition("=")[0] for word in record.env}
    first = [f"PATH={_DEFAULT_PATH}"] if "PATH" not in given else []
    if "HOSTNAME" not in given:
        first.append(f"HOSTNAME={hostname}")
    if record.spec.tty and "TERM" not in given:
        first.append("TERM=xterm")
    home = [f"HOME={identity.home}"] if "HOME" not in given else []
    return (*first, *record.env, *home)


_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _place(mode: str, neighbour: Neighbour | None, kind: str) -> str:
    if neighbour is not None:
        return neighbour.namespace(kind)
    return "host" if mode == "host" else ""


def _ipc(mode: str) -> str:
    if mode.startswith("container:"):
        raise Unsupported(
            f"--ipc {mode} is not supported yet", why="its /dev/shm lives in that container's mount namespace alone"
        )
    if mode not in ("", "host", "private"):
        raise InvalidArgument(f"invalid --ipc mode: {mode!r}", hint="private or host")
    return "host" if mode == "host" else ""


def _resources(resources: Resources) -> Resources:
    """The limits asked for, with the default of processes; what no machine of this size could mean is refused."""
    if resources.memory_bytes is not None and 0 <= resources.memory_bytes < _MIN_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 512KB", why=f"{resources.memory_bytes} bytes were asked")
    cpus = os.cpu_count() or 1
    if resources.cpu_quota_us and resources.cpu_quota_us > cpus * (resources.cpu_period_us or 100_000):
        raise InvalidArgument(f"Range of CPUs is from 0.01 to {cpus}.00", why=f"there are only {cpus} CPUs available")
    if resources.pids_limit is None:
        return resources.replace(pids_limit=defaults.PIDS_LIMIT)
    if resources.pids_limit == 0:
        raise InvalidArgument("invalid --pids-limit: 0", hint="-1 is no limit")
    return resources


def _mounts(
    record: ContainerRecord, *, settings: Settings, host_files: str, neighbours: Neighbours
) -> tuple[Mount, ...]:
    """Ours first, the user's in the order of depth, so that a mount never hides one below it."""
    spec = record.spec
    own = defaults.mounts(
        shm_size_bytes=spec.shm_size_bytes, privileged=spec.privileged, host_ipc=spec.ipc_mode == "host",
    )  # fmt: skip
    asked = [volumes.resolve(request, data_root=settings.data_root, container_id=record.id) for request in spec.mounts]
    asked += [
        volumes.anonymous(target, data_root=settings.data_root, container_id=record.id) for target in record.volumes
    ]
    targets = {mount.target for mount in asked}
    scratch = defaults.read_only_mounts() if spec.read_only else ()
    files = hostfiles.host_file_mounts(host_files)
    given = [mount for mount in (*scratch, *files) if mount.target not in targets]
    kept = [mount for mount in own if mount.target not in targets]
    return (*kept, *given, *sorted(asked, key=lambda mount: mount.target.count("/")))


def _devices(spec: ContainerSpec) -> tuple[tuple[Device, ...], tuple[DeviceRule, ...]]:
    devices = list(defaults.devices())
    rules = list(defaults.device_rules(privileged=spec.privileged))
    if spec.privileged:
        devices += _host_devices({device.path for device in devices})
    for request in spec.devices:
        device = _device(request)
        devices.append(device)
        rules.append(
            DeviceRule(allow=True, type=device.type, major=device.major, minor=device.minor, access=request.access)
        )
    return tuple(devices), tuple(rules)


def _device(request: DeviceRequest) -> Device:
    if not request.access or not _ACCESS.issuperset(request.access):
        raise InvalidArgument(f"invalid device mode: {request.access!r}", hint="any of r, w and m")
    try:
        status = os.stat(request.source)
    except OSError as err:
        why = os.strerror(err.errno or 0).lower()
        raise NotFound(f"error gathering device information while adding device {request.source!r}", why=why) from err
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise InvalidArgument(f"{request.source} is not a device node")
    return _node(request.target, status)


def _node(path: str, status: os.stat_result) -> Device:
    return Device(
        path=path,
        type="b" if stat.S_ISBLK(status.st_mode) else "c",
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
    )


def _host_devices(known: set[str]) -> list[Device]:
    """Every node of the host's /dev, for ``--privileged``; what has a file system of its own (pts, shm) is left out."""
    found = []
    for folder, directories, names in os.walk("/dev", followlinks=False):
        directories[:] = [name for name in directories if name not in ("pts", "shm", "mqueue", "fd", "hugepages")]
        for name in names:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if path not in known and name not in ("console", "ptmx", "tty"):
                if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                    found.append(_node(path, status))
    return found
