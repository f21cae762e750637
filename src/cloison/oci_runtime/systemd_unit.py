"""The systemd driver: a container's control group is a transient unit, and systemd knows its limits."""

from __future__ import annotations

from cloison.errors import InvalidArgument
from cloison.linux import cgroups, systemd
from cloison.linux.systemd_properties import annotated_properties, device_properties, parse_devices, properties_of
from cloison.model.record import Record
from cloison.store.atomic import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.linux.systemd_properties import Property
    from cloison.model.container import Resources
    from cloison.oci.runtime import Spec

_MAX_NAME = 255


class Unit(Record):
    name: str  # … .scope, or … .slice
    slice: str  # what it is in


def parse_unit(cgroups_path: str, *, container_id: str, is_root: bool) -> Unit:
    """``slice:prefix:name`` (runtime-spec leaves the form to runtimes; it is runc's). Raises: InvalidArgument."""
    parts = cgroups_path.split(":") if cgroups_path else ["", "cloison", container_id]
    if len(parts) != 3:
        raise InvalidArgument(
            f"invalid cgroupsPath {cgroups_path[:128]!r}",
            why='expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups',
        )
    above, prefix, name = parts
    above = above or ("system.slice" if is_root else "user.slice")
    if not above.endswith(".slice") or "/" in above:
        raise InvalidArgument(f"invalid cgroupsPath {cgroups_path[:128]!r}", why=f"{above!r} is not a slice's name")
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    if not name or "/" in unit or len(unit) > _MAX_NAME:
        raise InvalidArgument(f"invalid cgroupsPath {cgroups_path[:128]!r}", why=f"{unit[:64]!r} is not a unit's name")
    return Unit(name=unit, slice=above)


def start(unit: Unit, spec: Spec, *, pid: int, description: str, runtime_directory: str) -> str:
    """Start the unit with one process in it, which holds it until the container's own is there; its control group.

    Raises: Conflict when a unit of that name exists; Unsupported, Unavailable, Denied, InvalidArgument.
    """
    properties: list[Property] = [("Description", ("s", description)), *_kind(unit, pid)]
    # TimeoutStopSec and the like come last: what was asked for outweighs what we would say
    properties += limits(spec.linux.resources)
    properties += device_properties(spec.linux.device_rules, names=parse_devices(read_file("/proc/devices").decode()))
    properties += annotated_properties(spec.annotations)
    with systemd.connect(runtime_directory) as manager:
        manager.start(unit.name, properties)
        return manager.control_group(unit.name)


def _kind(unit: Unit, pid: int) -> list[Property]:
    accounting: list[Property] = [
        (f"{name}Accounting", ("b", True)) for name in ("CPU", "Memory", "IO", "Tasks")
    ]  # fmt: skip
    accounting.append(("DefaultDependencies", ("b", False)))
    if unit.name.endswith(".slice"):
        return [("Wants", ("as", [unit.slice])), *accounting]
    # The group is ours from now on: systemd leaves what is in it, and its controllers, alone
    return [
        ("Slice", ("s", unit.slice)), ("Delegate", ("b", True)), ("PIDs", ("au", [pid])),
        ("CollectMode", ("s", "inactive-or-failed")), *accounting,
    ]  # fmt: skip


def limits(resources: Resources) -> list[Property]:
    """What systemd is told of the limits, which are in the control files as well."""
    return properties_of(cgroups.plan_limits(cgroups.read_layout(), resources=resources))


def update(unit: str, resources: Resources, *, runtime_directory: str) -> None:
    """Raises: NotFound, InvalidArgument, Unavailable."""
    if changes := limits(resources):
        with systemd.connect(runtime_directory) as manager:
            manager.set_properties(unit, changes)


def stop(unit: str, *, runtime_directory: str) -> None:
    """Silent when systemd has taken it away by itself, as it does when the last process ends."""
    with systemd.connect(runtime_directory) as manager:
        manager.stop(unit)
