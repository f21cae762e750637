"""Control groups of version 1, version 2 and both: one interface over the directory trees that `read_layout` found.

A group is named by its path below every hierarchy's root, for instance ``cloison/<id>``. Its directories exist before
its processes: on version 2 the child starts inside (CLONE_INTO_CGROUP), on version 1 it is moved once, early.
"""

from __future__ import annotations

import os
import time

from cloison.errors import NotFound, Unavailable
from cloison.linux.cgroup_layout import Layout, read_layout
from cloison.linux.cgroup_limits import Write, plan_limits
from cloison.linux.cgroup_making import (
    Group,
    Placement,
    apply,
    check_path,
    enable_controllers,
    make_legacy,
    memory_file,
    placement_of,
    plan_group,
    rmdir,
)
from cloison.linux.cgroup_processes import (
    freeze,
    is_frozen,
    kill,
    leave_foreign_freezer,
    pids,
    read_field,
    subdirectories,
    write_value,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloison.model.container import Resources
    from cloison.oci.runtime import DeviceRule

__all__ = [
    "Group",
    "Layout",
    "Placement",
    "Write",
    "create",
    "find",
    "freeze",
    "is_frozen",
    "kill",
    "leave_foreign_freezer",
    "list_children",
    "memory_peak",
    "oom_kills",
    "pids",
    "plan_group",
    "plan_limits",
    "read_layout",
    "remove",
    "update",
]


def create(
    layout: Layout,
    path: str,
    *,
    resources: Resources,
    device_rules: tuple[DeviceRule, ...] = (),
    controllers: Iterable[str] = (),
    standing: bool = False,
) -> Placement:
    """`plan_group` and `Group.make` in one."""
    group = plan_group(layout, resources=resources, device_rules=device_rules, controllers=controllers)
    group.make(path, standing=standing)
    return group.placement(path)


def find(layout: Layout, path: str) -> Placement:
    """The placement of a group that exists, for one more process. Raises: NotFound."""
    check_path(path)
    standing = [root for root in layout.all_roots() if os.path.isdir(f"{root}/{path}")]
    if not standing:
        raise NotFound(f"control group {path} does not exist")
    return placement_of(layout, path, roots=[root for root in standing if root != layout.unified])


def update(layout: Layout, path: str, *, resources: Resources) -> None:
    """Change the limits of a group that lives; what is None stays, but memory without memory+swap means no swap.

    Raises: NotFound; Unsupported, Denied, InvalidArgument; Conflict when more is in use than the new limit.
    """
    joined = find(layout, path).join
    writes = plan_limits(layout, resources=resources)
    if layout.unified:
        enable_controllers(layout, path, writes=writes)
    for root in dict.fromkeys(layout.legacy[write.controller] for write in writes if write.version == 1):
        if f"{root}/{path}" not in joined:
            _join_late(layout, root, path)
    apply(layout, path, writes=_memory_order(layout, path, writes=writes))


def _join_late(layout: Layout, root: str, path: str) -> None:
    """Bring a group that runs into one more version 1 hierarchy: until none of its processes is outside."""
    make_legacy(layout, path, root=root, made=[])
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
    check_path(path)
    left = [directory for root in layout.all_roots() if not rmdir(directory := f"{root}/{path}")]
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
    check_path(parent)
    return {name for root in layout.all_roots() for name in subdirectories(f"{root}/{parent}")}


def memory_peak(layout: Layout, path: str) -> int:
    """Highest memory use so far, in bytes; 0 where the kernel does not keep it (version 2 before Linux 5.19)."""
    file = memory_file(layout, path, v1="memory.max_usage_in_bytes", v2="memory.peak")
    return read_field(file, "") if file else 0


def oom_kills(layout: Layout, path: str) -> int:
    """How many processes the kernel killed here because memory ran out."""
    file = memory_file(layout, path, v1="memory.oom_control", v2="memory.events")
    return read_field(file, "oom_kill") if file else 0


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


def _remove_tree(directory: str) -> bool:
    for name in subdirectories(directory):
        _remove_tree(f"{directory}/{name}")
    return rmdir(directory)
