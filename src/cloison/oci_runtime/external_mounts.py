"""Mounts of a container that come from outside, and whose contents therefore stay there when it is checkpointed.

CRIU must be told of each, by a name that is in the image, and at restore of what is to be mounted in its place.
"""

from __future__ import annotations

import errno
import os
import stat

from cloison.errors import Denied, InvalidArgument, NotFound
from cloison.linux.mount_table import read_mounts
from cloison.linux.paths import make_directories, open_in_root
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cloison.linux.mount_table import Mounted
    from cloison.model.mount import Mount
    from cloison.oci.runtime import Spec

NULL = "/dev/null"
_NULL_NUMBER = os.makedev(1, 3)
# File systems of which one mount is as good as another: CRIU makes its own
_MADE_ANEW = ("proc", "sysfs", "mqueue")
_GROUPS = ("cgroup", "cgroup2")


class External(Record):
    """One that comes from outside."""

    name: str  # in the image: the mount point
    wanted: str  # what it was made for: the destination in config.json, /dev/null for what is masked
    options: str  # "ro,nosuid,relatime"

    @property
    def words(self) -> list[str]:
        """As it is kept beside the image."""
        return [self.name, self.wanted, self.options]


class View(Record):
    """What has to be known to tell a container's own mounts from others'."""

    host_devices: frozenset[str]  # "major:minor" of what is mounted on the host
    names: Mapping[int, str]  # mount id -> destination of the bind mount in config.json
    nulls: frozenset[int] = frozenset()  # ids of mounts that are /dev/null
    group: str = ""  # the container's control group, where a namespace makes that the root


def look(pid: int, spec: Spec, *, group: str) -> tuple[list[Mounted], View]:
    """Of the container's first process. ``group``: its control group if it has a cgroup namespace of its own, or "".

    Raises: NotFound when it has just ended.
    """
    try:
        rows = read_mounts(f"/proc/{pid}/mountinfo")
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError) as err:
        raise NotFound("the container has just ended") from err
    try:
        targets = {row.id: row.target for row in rows}
        names: dict[int, str] = {}
        for mount in spec.mounts:
            mount_id, shown = _mounted_on(root, mount.target)
            if mount.type == "bind" and targets.get(mount_id) == shown:
                names[mount_id] = mount.target
        nulls = frozenset(row.id for row in rows if _is_null(root, row))
    finally:
        os.close(root)
    devices = frozenset(row.device for row in read_mounts("/proc/self/mountinfo"))
    return rows, View(host_devices=devices, names=names, nulls=nulls, group=group)


def find_external(rows: Iterable[Mounted], view: View) -> list[External]:
    """Those that come from outside. Pure."""
    return [
        External(name=row.target, wanted=_wanted(row, view), options=row.options)
        for row in rows
        if row.target != "/" and _is_external(row, view)
    ]


def _is_external(row: Mounted, view: View) -> bool:
    if row.id in view.names:
        return True
    if row.device not in view.host_devices or row.kind in _MADE_ANEW:
        return False
    if row.kind in _GROUPS and view.group:
        return not f"{row.root}/".startswith(f"/{view.group}/")
    return True


def _wanted(row: Mounted, view: View) -> str:
    return NULL if row.id in view.nulls else view.names.get(row.id, row.target)


def _is_null(root: int, row: Mounted) -> bool:
    """A mount of the null device alone: what masks a file, or a node of a user namespace."""
    if row.root == "/":
        return False
    try:
        fd = open_in_root(root, os.fsencode(row.target), flags=os.O_PATH)
    except OSError:
        return False
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL_NUMBER


def _mounted_on(root: int, path: str) -> tuple[int, str]:
    """The id of the mount that this path is on, and the path without links; -1 when there is no such path."""
    try:
        fd = open_in_root(root, os.fsencode(path), flags=os.O_PATH)
    except OSError:
        return -1, ""
    try:
        return descriptor_mount(fd), os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def descriptor_mount(fd: int | str, *, pid: int | str = "self") -> int:
    """The id of the mount that a process's descriptor is on (proc_pid_fdinfo(5)); -1 when it is closed."""
    try:
        with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as lines:
            return next((int(line.split()[1]) for line in lines if line.startswith("mnt_id:")), -1)
    except (FileNotFoundError, ProcessLookupError):
        return -1


def named_in(spec: Spec) -> list[External]:
    """Those of a checkpoint that another runtime made: runc and crun name mounts by their destination."""
    binds = [mount for mount in spec.mounts if mount.type == "bind"]
    found = [External(name=mount.target, wanted=mount.target, options=",".join(mount.options)) for mount in binds]
    return [External(name=NULL, wanted=NULL, options=""), *found]


def find_sources(external: Iterable[External], spec: Spec, *, groups: Mapping[str, str]) -> list[tuple[External, str]]:
    """Each with the path on the host that this bundle has for it.

    ``groups``: the same for cgroup mounts. An image is not to be trusted: nothing is mounted that the bundle does not
    name. Raises: InvalidArgument.
    """
    binds = {mount.target: mount.source for mount in spec.mounts if mount.type == "bind"}
    devices = {device.path for device in spec.linux.devices}
    found = []
    for one in external:
        wanted = one.wanted
        if source := binds.get(wanted) or groups.get(wanted) or _below(wanted, binds):
            found.append((one, source))
        elif wanted == NULL or wanted in devices:
            found.append((one, wanted))
        else:
            why = "the checkpoint has a mount from outside there, and config.json has none"
            raise InvalidArgument(f"cannot restore the mount on {one.name}", why=why, hint="add it to mounts")
    return found


def _below(name: str, binds: Mapping[str, str]) -> str:
    """A mount that came along with the one that it lies in, by ``rbind``."""
    above = max((target for target in binds if name.startswith(f"{target.rstrip('/')}/")), key=len, default="")
    if not above or ".." in name.split("/"):
        return ""
    return f"{binds[above].rstrip('/')}/{name[len(above) :].lstrip('/')}"


def make_targets(spec: Spec) -> None:
    """What create would have made for the mounts to lie on, but in file systems that CRIU fills. Raises: Denied."""
    for index, mount in enumerate(spec.mounts):
        if mount.target.rstrip("/") and mount.type not in _GROUPS:
            _make_target(mount, spec.mounts[:index], root=spec.root.mount.source)


def _make_target(mount: Mount, before: Sequence[Mount], *, root: str) -> None:
    path, directory = mount.target, root
    for other in before:
        if path.startswith(f"{other.target.rstrip('/')}/"):
            if other.type != "bind":
                return
            path, directory = path[len(other.target.rstrip("/")) :], other.source
    is_file = mount.type == "bind" and not os.path.isdir(mount.source)
    parent, _, name = path.rstrip("/").rpartition("/")
    try:
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _exists(fd, path):
                return
            inside = make_directories(fd, os.fsencode(parent if is_file else path), mode=0o755)
            if is_file:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=inside))
            os.close(inside)
        finally:
            os.close(fd)
    except OSError as err:
        why = os.strerror(err.errno or 0).lower()
        raise Denied(f"cannot make {mount.target} to mount on", why=why) from err


def _exists(root: int, path: str) -> bool:
    try:
        os.close(open_in_root(root, os.fsencode(path), flags=os.O_PATH))
    except OSError as err:
        return err.errno != errno.ENOENT
    return True
