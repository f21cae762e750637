"""``checkpoint``: a container's processes with their memory and files into a directory, by CRIU."""

from __future__ import annotations

import fcntl
import os

from cloison.errors import CloisonError, Conflict, Denied, InvalidArgument, Unsupported
from cloison.linux import cgroups, criu
from cloison.linux.private_mounts import PrivateMounts
from cloison.oci_runtime.containers import Containers
from cloison.oci_runtime.criu_verbs import (
    DESCRIPTORS_FILE,
    MOUNTS_FILE,
    NAMESPACE_KEYS,
    OPTIONS,
    Directories,
    check,
    check_namespaces,
    check_rights,
    common_options,
    converse,
    group_yard,
)
from cloison.oci_runtime.external_mounts import descriptor_mount, find_external, look
from cloison.oci_runtime.options import Call, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.linux.criu import Notice
    from cloison.linux.mount_table import Mounted
    from cloison.oci.runtime import Spec
    from cloison.oci_runtime.containers import Container
    from cloison.oci_runtime.external_mounts import External

_LOG = "dump.log"
_MOST_FDS = 256


def _checkpoint(call: Call) -> int:
    from cloison.oci.config_json import parse_config

    containers = Containers(call.root)
    container = containers.load(call.id)
    check_rights("checkpoint")
    program = criu.installed(call.criu)
    with containers.lock(call.id):
        container = containers.load(call.id)
        status = containers.status(container)
        if status not in ("running", "paused"):
            raise Conflict(f"cannot checkpoint container {call.id}", why=f"it is {status}")
        spec = parse_config(containers.config(call.id), bundle=container.bundle).spec
        check_namespaces(spec, "checkpoint")
        _check_mounts(spec)
        with Directories(call, make=True) as directories:
            options = {**common_options(call, spec.annotations), **dump_options(call, directories)}
            try:
                _dump(call, container, spec, program=program, directories=directories, options=options)
            except BaseException:
                _let_go_on(container, was_paused=status == "paused")
                raise
    if not (call.switch("leave-running") or call.switch("pre-dump")):
        from cloison.oci_runtime.ending import delete

        delete(containers, call.id, force=True, log=call.log)
    return 0


def _check_mounts(spec: Spec) -> None:
    from cloison.oci.config_mounts import IDMAP

    mapped = next((mount.target for mount in spec.mounts if not IDMAP.isdisjoint(mount.options)), "")
    if mapped:
        raise Unsupported("cannot checkpoint a container", why=f"the mount on {mapped} has id mappings of its own")


def _let_go_on(container: Container, *, was_paused: bool) -> None:
    """A failure shall not stop the container, which CRIU may have left frozen."""
    if container.cgroup and not was_paused:
        layout = cgroups.read_layout()
        if cgroups.is_frozen(layout, container.cgroup):
            try:
                cgroups.freeze(layout, container.cgroup, frozen=False)
            except CloisonError:
                pass  # the reason why we are here is the better message


def dump_options(call: Call, directories: Directories) -> dict[str, object]:
    """Those of this verb alone, by CRIU's names. Raises: InvalidArgument."""
    options: dict[str, object] = {
        **directories.options(),
        "log_file": _LOG,
        "leave_running": call.switch("leave-running"),
        "tcp_skip_in_flight": call.switch("tcp-skip-in-flight"),
        "link_remap": call.switch("link-remap"),
    }
    if call.text("page-server"):
        options["ps"] = page_server(call.text("page-server"))
    if parent := call.text("parent-path"):
        if os.path.isabs(parent):
            raise InvalidArgument(f"invalid --parent-path {parent}", why="it must be relative to --image-path")
        if not os.path.isdir(f"{directories.images}/{parent}"):
            why = f"{directories.images} has no such directory"
            raise InvalidArgument(f"invalid --parent-path {parent}", why=why)
        options.update(parent_img=parent, track_mem=True)
    if call.given("status-fd"):
        _check_status_fd(call)
    return options


def page_server(text: str) -> tuple[str, int]:
    """``ADDRESS:PORT``. Raises: InvalidArgument."""
    address, _, port = text.rpartition(":")
    if not (address and port.isascii() and port.isdigit() and 0 < len(port) < 6 and 0 < int(port) < 1 << 16):
        raise InvalidArgument(f"invalid --page-server {text[:128]!r}", why="it is not ADDRESS:PORT")
    return address.removeprefix("[").removesuffix("]"), int(port)


def _check_status_fd(call: Call) -> None:
    fd = call.number("status-fd") or 0
    try:
        access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    except (OSError, OverflowError) as err:
        raise InvalidArgument(f"invalid --status-fd {fd}", why="it is not open") from err
    if access == os.O_RDONLY:
        raise InvalidArgument(f"invalid --status-fd {fd}", why="it is not open for writing")


def _dump(
    call: Call, container: Container, spec: Spec, *, program: str, directories: Directories, options: dict[str, object]
) -> None:
    """Raises: Unavailable."""
    layout = cgroups.read_layout()
    external = _external_namespaces(container.pid, spec)
    options.update(pid=container.pid, root=container.rootfs, external=external)
    if container.cgroup and (freezer := layout.unified or layout.legacy.get("freezer")):
        options["freeze_cgroup"] = f"{freezer}/{container.cgroup}"
    pre_dump = call.switch("pre-dump")
    if not pre_dump:
        rows, mounts = _mounts(container, spec)
        descriptors = list_descriptors(container.pid, mounts={row.id for row in rows})
        options["ext_mnt"] = [(mount.name, mount.name) for mount in mounts]
        external += [word for word in descriptors if word.startswith("file[")]
        directories.write(DESCRIPTORS_FILE, descriptors)
        directories.write(MOUNTS_FILE, [mount.words for mount in mounts])
    log = directories.log(_LOG)
    with _start_worker(program, container, call, directories=directories, options=options) as worker:
        worker.ask(criu.SINGLE_PRE_DUMP if pre_dump else criu.DUMP, options)
        notice = converse(worker, lambda notice: _tell_status(call, notice))
        check(notice, f"cannot checkpoint container {container.id}", log=log)


def _start_worker(
    program: str, container: Container, call: Call, *, directories: Directories, options: dict[str, object]
) -> criu.Worker:
    if cgroups.read_layout().legacy:
        return criu.Worker(program)
    yard = Containers(call.root).path(container.id)
    try:
        with PrivateMounts() as mounts:
            mounts.gather(group_yard(), on=yard)
            options["cgroup_yard"] = yard
            directories.open_again()
            return criu.Worker(program)
    except OSError as err:
        why = f"mount: {os.strerror(err.errno or 0).lower()}"
        raise Denied(f"cannot checkpoint container {container.id}", why=why) from err


def _tell_status(call: Call, notice: Notice) -> None:
    """runc's: one byte as soon as the pages can be asked for."""
    if notice.script == "status-ready" and call.given("status-fd"):
        fd = call.number("status-fd") or 0
        os.write(fd, b"\0")
        os.close(fd)


def _mounts(container: Container, spec: Spec) -> tuple[list[Mounted], list[External]]:
    has_own = any(namespace.type == "cgroup" for namespace in spec.linux.namespaces)
    rows, view = look(container.pid, spec, group=container.cgroup if has_own else "")
    return rows, find_external(rows, view)


def _external_namespaces(pid: int, spec: Spec) -> list[str]:
    """Those that were there before: they are joined at restore, whatever they hold then."""
    names = {"network": "net", "pid": "pid"}
    return [
        f"{names[namespace.type]}[{os.stat(f'/proc/{pid}/ns/{names[namespace.type]}').st_ino}]"
        f":{NAMESPACE_KEYS[namespace.type]}"
        for namespace in spec.linux.namespaces
        if namespace.path and namespace.type in NAMESPACE_KEYS
    ]


def list_descriptors(pid: int, *, mounts: set[int]) -> list[str]:
    """What the first process's descriptors lead to, by number, as CRIU names what it is to inherit at restore.

    ``pipe:[INODE]``; ``file[MOUNT:INODE]`` on a mount that is not the container's; others' paths are there to be read.
    """
    try:
        numbers = [int(name) for name in os.listdir(f"/proc/{pid}/fd")]
    except (FileNotFoundError, ProcessLookupError):
        return []
    found = [""] * (max((number for number in numbers if number < _MOST_FDS), default=-1) + 1)
    for number in numbers:
        if number >= len(found):
            continue
        try:
            link = os.readlink(f"/proc/{pid}/fd/{number}")
            mount, inode = descriptor_mount(number, pid=pid), os.stat(f"/proc/{pid}/fd/{number}").st_ino
        except OSError:
            continue  # just closed
        is_foreign = link.startswith("/") and mount not in mounts and not link.startswith(("/memfd:", "/dmabuf:"))
        found[number] = f"file[{mount:x}:{inode:x}]" if is_foreign else link
    return found


CHECKPOINT = Verb(
    "checkpoint", _checkpoint, usage="CONTAINER",
    options={
        **OPTIONS, "parent-path": "text", "leave-running": "switch", "tcp-skip-in-flight": "switch",
        "link-remap": "switch", "status-fd": "text", "page-server": "text", "pre-dump": "switch",
    },
)  # fmt: skip
