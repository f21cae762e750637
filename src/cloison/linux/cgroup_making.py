"""Making a control group with its limits, on version 1, version 2 or both.

What it will be is known before it is made (`plan_group`), and one group's plan serves for others of the same limits. A
process may be born into it (version 2) as soon as it is reserved; the limits are in force once it is made.
"""

from __future__ import annotations

import errno
import os

from cloison.errors import CloisonError, Conflict, Denied, InvalidArgument, Unavailable, Unsupported
from cloison.linux.cgroup_layout import Layout
from cloison.linux.cgroup_limits import Write, plan_limits
from cloison.linux.cgroup_processes import read_text, write_value
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloison.model.container import Resources
    from cloison.oci.runtime import DeviceRule

# Enabled for every group on version 2, limits or not: they bring the figures (memory.peak, memory.events).
_ENABLED = ("cpu", "io", "memory", "pids")
_MAKE_ROUNDS = 100  # one takes microseconds; the bound is for what would never end
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class Placement(Record):
    """How a process gets into a group, and which files tell its end."""

    join: tuple[str, ...] = ()  # version 1 directories, which it enters itself
    into: str = ""  # version 2 directory for CLONE_INTO_CGROUP, or ""
    stats: tuple[tuple[str, str, str], ...] = ()  # (key, file, field) for the monitor's exit file, if they exist


class Group(Record):
    """What a group will be, wherever it is made."""

    layout: Layout
    roots: tuple[str, ...]  # version 1 hierarchies it is in
    writes: tuple[Write, ...]
    device_rules: tuple[DeviceRule, ...]

    def placement(self, path: str) -> Placement:
        return placement_of(self.layout, path, roots=self.roots)

    def reserve(self, path: str) -> None:
        """Make what a process is born into, as yet without limits. Raises: Conflict when it exists; Denied."""
        check_path(path)
        if self.layout.unified:
            _make(self.layout.unified, path, made=[])

    def make(self, path: str, *, reserved: bool = False, standing: bool = False) -> None:
        """Make it, or the rest of it, with its limits. After an error nothing of it is left, but what was there.

        ``reserved``: `reserve` was called. ``standing``: systemd has made it, in some hierarchies or all.
        Raises: Conflict when it exists; Unsupported, Denied, InvalidArgument when a limit cannot be enforced.
        """
        check_path(path)
        layout = self.layout
        made: list[str] = []
        try:
            for root in self.roots:
                if not (standing and os.path.isdir(f"{root}/{path}")):
                    make_legacy(layout, path, root=root, made=made)
            if layout.unified:
                if not (reserved or (standing and os.path.isdir(f"{layout.unified}/{path}"))):
                    _make(layout.unified, path, made=made)
                enable_controllers(layout, path, writes=self.writes)
            apply(layout, path, writes=self.writes)
            if self.device_rules and layout.version_of("devices") == 2:
                _attach_device_filter(f"{layout.unified}/{path}", self.device_rules)
        except BaseException:
            for directory in reversed(made):
                rmdir(directory)
            raise


def plan_group(
    layout: Layout,
    *,
    resources: Resources,
    device_rules: tuple[DeviceRule, ...] = (),
    controllers: Iterable[str] = (),
) -> Group:
    """``controllers``: those of version 1 whose hierarchies it joins although no limit asks for them. Pure.

    Raises: InvalidArgument, Unsupported when a limit cannot be enforced here.
    """
    writes = plan_limits(layout, resources=resources, device_rules=device_rules)
    roots = layout.hierarchies((*controllers, *(write.controller for write in writes)))
    return Group(layout=layout, roots=roots, writes=writes, device_rules=device_rules)


def check_path(path: str) -> None:
    if not path or path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
        raise InvalidArgument(f"invalid control group path {path!r}", hint="use a relative path without '..'")


def memory_file(layout: Layout, path: str, *, v1: str, v2: str) -> str:
    version = layout.version_of("memory")
    if version == 1:
        return f"{layout.legacy['memory']}/{path}/{v1}"
    return f"{layout.unified}/{path}/{v2}" if version == 2 else ""


def placement_of(layout: Layout, path: str, *, roots: Iterable[str]) -> Placement:
    files = (
        ("oom", memory_file(layout, path, v1="memory.oom_control", v2="memory.events"), "oom_kill"),
        ("memory_peak", memory_file(layout, path, v1="memory.max_usage_in_bytes", v2="memory.peak"), ""),
    )
    return Placement(
        join=tuple(f"{root}/{path}" for root in roots),
        into=f"{layout.unified}/{path}" if layout.unified else "",
        stats=tuple((key, file, field) for key, file, field in files if file),
    )


def _make(root: str, path: str, *, made: list[str]) -> None:
    """Make the group's directory, and those above it; ``made`` learns of each that is new."""
    target = f"{root}/{path}"
    for _round in range(_MAKE_ROUNDS):  # somebody else's undo may take an empty parent away between our two steps
        try:
            os.mkdir(target, 0o755)
        except FileNotFoundError:
            _make_parents(root, path, made=made)
        except FileExistsError as err:
            raise Conflict(f"control group {path} exists already", why=f"{target} is there") from err
        except OSError as err:
            raise refusal(f"cannot make control group {target}", err) from err
        else:
            made.append(target)
            return
    raise Unavailable(f"cannot make control group {target}", why="its parent vanishes again and again")


def _make_parents(root: str, path: str, *, made: list[str]) -> None:
    directory = root
    for name in path.split("/")[:-1]:
        directory = f"{directory}/{name}"
        try:
            os.mkdir(directory, 0o755)
        except FileExistsError:
            continue
        except FileNotFoundError:
            return  # the caller's next round begins again
        except OSError as err:
            raise refusal(f"cannot make control group {directory}", err) from err
        made.append(directory)


def enable_controllers(layout: Layout, path: str, *, writes: Iterable[Write]) -> None:
    """Version 2: let each ancestor pass its controllers on, in cgroup.subtree_control (cgroup-v2.rst, "Enabling").

    Raises: Denied when a controller that a limit needs is not passed on; others are not missed.
    """
    needed = {write.controller for write in writes if write.version == 2}
    wanted = [name for name in layout.unified_controllers if name in needed or name in _ENABLED]
    names = path.split("/")
    above = ["/".join((layout.unified, *names[:depth])) for depth in range(len(names))]
    if not wanted or set(wanted) <= set(read_text(f"{above[-1]}/cgroup.subtree_control").split()):
        return
    for directory in above:
        enabled = read_text(f"{directory}/cgroup.subtree_control").split()
        for name in wanted:
            if name not in enabled:
                _enable(directory, name, required=name in needed)


def _enable(directory: str, controller: str, *, required: bool) -> None:
    try:
        write_value(f"{directory}/cgroup.subtree_control", f"+{controller}")
    except OSError as err:
        if not required:
            return
        what = f"cannot use the {controller} controller"
        if err.errno == errno.EBUSY:
            why = f"{directory} has processes of its own"
            raise Denied(what, why=why, hint="move them into a group below it") from err
        offered = read_text(f"{directory}/cgroup.controllers").strip() or "none"
        raise Denied(
            what,
            why=f"{directory} is given only: {offered}",
            hint=f"delegate it: set 'Delegate={controller}' in the systemd unit above, or run as root",
        ) from err


def make_legacy(layout: Layout, path: str, *, root: str, made: list[str]) -> None:
    _make(root, path, made=made)
    if root == layout.legacy.get("cpuset"):
        _seed_cpuset(root, path)


def _seed_cpuset(root: str, path: str) -> None:
    """Version 1: a new cpuset has no processor and no memory node, and refuses processes; take the parent's."""
    above = root
    for name in path.split("/"):
        directory = f"{above}/{name}"
        for file in ("cpuset.cpus", "cpuset.mems"):
            if not read_text(f"{directory}/{file}").strip():
                value = read_text(f"{above}/{file}").strip()
                _write(directory, Write(controller="cpuset", version=1, file=file, value=value))
        above = directory


def _attach_device_filter(directory: str, rules: tuple[DeviceRule, ...]) -> None:
    from cloison.linux.device_filter import attach

    attach(directory, rules)


def apply(layout: Layout, path: str, *, writes: Iterable[Write]) -> None:
    for write in writes:
        root = layout.legacy[write.controller] if write.version == 1 else layout.unified
        _write(f"{root}/{path}", write)


def _write(directory: str, write: Write) -> None:
    try:
        try:
            write_value(f"{directory}/{write.file}", write.value)
        except FileNotFoundError:
            if not write.other_file:
                raise
            write_value(f"{directory}/{write.other_file}", write.other_value)
    except OSError as err:
        if not (write.optional and err.errno == errno.ENOENT):
            raise _limit_error(write, err) from err


def _limit_error(write: Write, err: OSError) -> CloisonError:
    what = f"cannot set {write.file} to {write.value}"
    if err.errno == errno.ENOENT:
        swap = "boot the kernel with swapaccount=1, or run without this limit"
        hint = swap if "sw" in write.file else "run without this limit"
        return Unsupported(what, why=f"this kernel's {write.controller} controller has no such file", hint=hint)
    if err.errno in (errno.EINVAL, errno.ERANGE, errno.ENODEV):
        return InvalidArgument(what, why="the kernel refuses this value", hint="choose another value, or none")
    if err.errno == errno.EBUSY:
        return Conflict(what, why="more than that is in use now")
    if err.errno == errno.EOPNOTSUPP:
        return Unsupported(what, why="the disk's scheduler has no weights", hint="run without this limit")
    return refusal(what, err)


def refusal(what: str, err: OSError) -> CloisonError:
    why = os.strerror(err.errno or 0).lower()
    if err.errno in _REFUSED:
        return Denied(what, why=why, hint="run as root, or where control groups are delegated to this user")
    return Unavailable(what, why=why)


def rmdir(directory: str) -> bool:
    """Whether the directory is gone. Raises: Denied."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError as err:
        if err.errno in _REFUSED:
            raise refusal(f"cannot remove control group {directory}", err) from err
        return False
    return True
