"""Control groups of version 1, version 2 and both: one interface over the directory trees that `read_layout` found.

A group is named by its path below every hierarchy's root, for instance ``cloison/<id>``. Its directories exist before
the container is born: on version 2 the child starts inside (CLONE_INTO_CGROUP), on version 1 it is moved once, early.
"""

from __future__ import annotations

import errno
import os
import time

from cloison.errors import (
    CloisonError,
    Conflict,
    Denied,
    InvalidArgument,
    NotFound,
    Unavailable,
    Unsupported,
)
from cloison.linux.cgroup_layout import Layout, read_layout
from cloison.linux.cgroup_limits import Write, plan_limits
from cloison.linux.cgroup_processes import (
    freeze,
    is_frozen,
    kill,
    pids,
    read_field,
    read_text,
    subdirectories,
    write_value,
)
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloison.model.container import Resources
    from cloison.oci.runtime import DeviceRule

__all__ = [
    "Layout",
    "Placement",
    "Write",
    "create",
    "find",
    "freeze",
    "is_frozen",
    "kill",
    "list_children",
    "memory_peak",
    "oom_kills",
    "pids",
    "plan_limits",
    "read_layout",
    "remove",
    "update",
]

# Enabled for every group on version 2, limits or not: they bring the figures (memory.peak, memory.events).
_ENABLED = ("cpu", "io", "memory", "pids")
_MAKE_ROUNDS = 100  # one takes microseconds; the bound is for what would never end
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class Placement(Record):
    """How a process gets into a group, and which files tell its end."""

    join: tuple[str, ...] = ()  # version 1 directories: write the pid to their cgroup.procs
    into: str = ""  # version 2 directory for CLONE_INTO_CGROUP, or ""
    stats: tuple[tuple[str, str, str], ...] = ()  # (key, file, field) for the monitor's exit file


def create(
    layout: Layout,
    path: str,
    *,
    resources: Resources,
    device_rules: tuple[DeviceRule, ...] = (),
    controllers: Iterable[str] = (),
) -> Placement:
    """Make a group with its limits. After an error nothing of it is left.

    ``controllers``: those of version 1 whose hierarchies it joins although no limit asks for them.

    Raises: Conflict when it exists; Unsupported, Denied, InvalidArgument when a limit cannot be enforced.
    """
    _check_path(path)
    writes = plan_limits(layout, resources=resources, device_rules=device_rules)
    roots = layout.hierarchies((*controllers, *(write.controller for write in writes)))
    made: list[str] = []
    try:
        for root in roots:
            _make_legacy(layout, root, path, made=made)
        if layout.unified:
            _make(layout.unified, path, made=made)
            _enable_controllers(layout, path, writes=writes)
        _apply(layout, path, writes=writes)
        if device_rules and layout.version_of("devices") == 2:
            _attach_device_filter(f"{layout.unified}/{path}", device_rules)
    except BaseException:
        for directory in reversed(made):
            _rmdir(directory)
        raise
    return _placement(layout, path, roots=roots)


def find(layout: Layout, path: str) -> Placement:
    """The placement of a group that exists, for one more process. Raises: NotFound."""
    _check_path(path)
    standing = [root for root in layout.all_roots() if os.path.isdir(f"{root}/{path}")]
    if not standing:
        raise NotFound(f"control group {path} does not exist")
    return _placement(layout, path, roots=[root for root in standing if root != layout.unified])


def update(layout: Layout, path: str, *, resources: Resources) -> None:
    """Change the limits of a group that lives; what is None stays, but memory without memory+swap means no swap.

    Raises: NotFound; Unsupported, Denied, InvalidArgument; Conflict when more is in use than the new limit.
    """
    joined = find(layout, path).join
    writes = plan_limits(layout, resources=resources)
    if layout.unified:
        _enable_controllers(layout, path, writes=writes)
    for root in dict.fromkeys(layout.legacy[write.controller] for write in writes if write.version == 1):
        if f"{root}/{path}" not in joined:
            _join_late(layout, root, path)
    _apply(layout, path, writes=_memory_order(layout, path, writes=writes))


def _join_late(layout: Layout, root: str, path: str) -> None:
    """Bring a group that runs into one more version 1 hierarchy: until none of its processes is outside."""
    _make_legacy(layout, root, path, made=[])
    inside: set[int] = set()
    while strangers := set(pids(layout, path)) - inside:
        for pid in strangers:
            try:
                write_value(f"{root}/{path}/cgroup.procs", str(pid))
            except ProcessLookupError:
                pass
        inside |= strangers


def remove(layout: Layout, path: str, *, timeout_s: float = 5.0) -> None:
    """Kill what is left in the group and remove it, groups below it included; silent when it is gone.

    Raises: Unavailable when processes do not end in ``timeout_s`` seconds; Denied.
    """
    _check_path(path)
    left = [directory for root in layout.all_roots() if not _rmdir(directory := f"{root}/{path}")]
    if not left:
        return
    kill(layout, path)
    deadline = time.monotonic() + timeout_s
    pause_s = 0.0005
    while left := [directory for directory in left if not _remove_tree(directory)]:
        if time.monotonic() > deadline:
            raise Unavailable(
                f"cannot remove control group {path}",
                why=f"processes in it do not end: {' '.join(map(str, pids(layout, path))) or left[0]}",
                hint="a process that waits for a disk or a file server ends when that answers; then try again",
            )
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.05)
        if pause_s > 0.01:
            kill(layout, path)  # somebody may have joined since


def list_children(layout: Layout, parent: str) -> set[str]:
    """Names of the groups directly below ``parent`` in any hierarchy."""
    _check_path(parent)
    return {name for root in layout.all_roots() for name in subdirectories(f"{root}/{parent}")}


def memory_peak(layout: Layout, path: str) -> int:
    """Highest memory use so far, in bytes; 0 where the kernel does not keep it (version 2 before Linux 5.19)."""
    file = _memory_file(layout, path, v1="memory.max_usage_in_bytes", v2="memory.peak")
    return read_field(file, "") if file else 0


def oom_kills(layout: Layout, path: str) -> int:
    """How many processes the kernel killed here because memory ran out."""
    file = _memory_file(layout, path, v1="memory.oom_control", v2="memory.events")
    return read_field(file, "oom_kill") if file else 0


def _check_path(path: str) -> None:
    if not path or path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
        raise InvalidArgument(f"invalid control group path {path!r}", hint="use a relative path without '..'")


def _memory_file(layout: Layout, path: str, *, v1: str, v2: str) -> str:
    version = layout.version_of("memory")
    if version == 1:
        return f"{layout.legacy['memory']}/{path}/{v1}"
    return f"{layout.unified}/{path}/{v2}" if version == 2 else ""


def _placement(layout: Layout, path: str, *, roots: Iterable[str]) -> Placement:
    files = (
        ("oom", _memory_file(layout, path, v1="memory.oom_control", v2="memory.events"), "oom_kill"),
        ("memory_peak", _memory_file(layout, path, v1="memory.max_usage_in_bytes", v2="memory.peak"), ""),
    )
    return Placement(
        join=tuple(f"{root}/{path}" for root in roots),
        into=f"{layout.unified}/{path}" if layout.unified else "",
        stats=tuple((key, file, field) for key, file, field in files if file and os.path.exists(file)),
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
            raise _refusal(f"cannot make control group {target}", err) from err
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
            raise _refusal(f"cannot make control group {directory}", err) from err
        made.append(directory)


def _enable_controllers(layout: Layout, path: str, *, writes: Iterable[Write]) -> None:
    """Version 2: let each ancestor pass its controllers on, in cgroup.subtree_control (cgroup-v2.rst, "Enabling").

    Raises: Denied when a controller that a limit needs is not passed on; others are not missed.
    """
    needed = {write.controller for write in writes if write.version == 2}
    wanted = [name for name in (*_ENABLED, "cpuset") if name in needed or name in _ENABLED]
    wanted = [name for name in wanted if name in layout.unified_controllers]
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


def _make_legacy(layout: Layout, root: str, path: str, *, made: list[str]) -> None:
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


def _apply(layout: Layout, path: str, *, writes: Iterable[Write]) -> None:
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
    return _refusal(what, err)


def _refusal(what: str, err: OSError) -> CloisonError:
    why = os.strerror(err.errno or 0).lower()
    if err.errno in _REFUSED:
        return Denied(what, why=why, hint="run as root, or where control groups are delegated to this user")
    return Unavailable(what, why=why)


def _memory_order(layout: Layout, path: str, *, writes: tuple[Write, ...]) -> list[Write]:
    """Version 1 keeps memory <= memory+swap at every moment: when the limit rises above the latter, that goes first."""
    ordered = list(writes)
    limits = [write for write in ordered if write.version == 1 and write.file.endswith("limit_in_bytes")]
    pair = [write for write in limits if write.file in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")]
    if len(pair) < 2:
        return ordered
    current = read_field(f"{layout.legacy['memory']}/{path}/memory.memsw.limit_in_bytes", "")
    limit = int(pair[0].value)
    if current and (limit < 0 or limit > current):
        first, second = ordered.index(pair[0]), ordered.index(pair[1])
        ordered[first], ordered[second] = ordered[second], ordered[first]
    return ordered


def _rmdir(directory: str) -> bool:
    """Whether the directory is gone. Raises: Denied."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError as err:
        if err.errno in _REFUSED:
            raise _refusal(f"cannot remove control group {directory}", err) from err
        return False
    return True


def _remove_tree(directory: str) -> bool:
    for name in subdirectories(directory):
        _remove_tree(f"{directory}/{name}")
    return _rmdir(directory)
