"""From limits to the words that the kernel's control files want: decided here, written by `cloison.linux.cgroups`.

Sources: kernel Documentation/admin-guide/cgroup-v1/*.rst and cgroup-v2.rst; for the conversions between the two scales
runtime-spec config-linux.md, "Control groups", and the formulas that runc and crun agreed on.
"""

from __future__ import annotations

import os
import stat

from cloison.errors import InvalidArgument, NotFound, Unsupported
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cloison.linux.cgroup_layout import Layout
    from cloison.model.container import DeviceRate, Resources
    from cloison.oci.runtime import DeviceRule

_SWITCHES = {
    "memory": "boot the kernel with cgroup_enable=memory",
    "pids": "use a kernel with CONFIG_CGROUP_PIDS",
    "cpuset": "use a kernel with CONFIG_CPUSETS",
}
_UNLIMITED = -1


class Write(Record):
    """One value for one control file."""

    controller: str  # "cpu", "memory" …; the version says which tree
    version: int
    file: str
    value: str
    other_file: str = ""  # written where ``file`` does not exist
    other_value: str = ""
    optional: bool = False  # nobody asked for it: where the kernel has no such file, nothing is lost

    def __str__(self) -> str:
        return f"{self.file} {self.value}"


def plan_limits(
    layout: Layout,
    *,
    resources: Resources,
    device_rules: tuple[DeviceRule, ...] = (),
    device_number: Callable[[str], str] | None = None,
) -> tuple[Write, ...]:
    """What to write into the container's control group, in order.

    ``device_number`` turns a block device's path into "major:minor"; by default it asks the file system. Device rules
    on version 2 need no write: they become a BPF program.
    Raises: Unsupported naming the missing controller; InvalidArgument; NotFound for a device.
    """
    return (
        *_plan_memory(layout, resources),
        *_plan_cpu(layout, resources),
        *_plan_cpuset(layout, resources),
        *_plan_pids(layout, resources),
        *_plan_weight(layout, resources),
        *_plan_rates(layout, resources, device_number=device_number or number_of_device),
        *_plan_values(layout, resources),
        *_plan_devices(layout, device_rules),
    )


def require(layout: Layout, controller: str, *, purpose: str) -> int:
    """The version that has the controller. Raises: Unsupported."""
    version = layout.version_of(controller)
    if version:
        return version
    present = " ".join(layout.controllers) or "none"
    raise Unsupported(
        f"cannot {purpose}",
        why=f"this machine has no {controller} control group controller (it has: {present})",
        hint=f"{_SWITCHES.get(controller, f'enable the {controller} controller')}, or run without this limit",
    )


def weight_from_shares(shares: int) -> int:
    """cpu.weight (1..10000, 100 is normal) for cpu.shares (2..262144, 1024 is normal).

    Quadratic in the exponent, so that both ends and both normals meet (runc and crun since 2025; linear before, where
    1024 became 39).
    """
    from math import ceil, log2

    exponent = log2(min(max(shares, 2), 262144))
    # The guard keeps 1024 at 100: the sum is a hair above the whole number in floating point.
    return ceil(10 ** ((exponent * exponent + 125 * exponent) / 612 - 7 / 34) - 1e-9)


def io_weight_from_blkio(weight: int) -> int:
    """io.weight (1..10000) for blkio.weight (10..1000), linear."""
    return 1 + (weight - 10) * 9999 // 990


def number_of_device(path: str) -> str:
    """ "major:minor" of a block device, given so or by its path.

    Raises: NotFound; InvalidArgument when it is none.
    """
    if path[:1].isdigit():  # no absolute path
        return path
    try:
        status = os.stat(path)
    except OSError as err:
        raise NotFound(f"cannot limit device {path}", why=os.strerror(err.errno or 0).lower()) from err
    if not stat.S_ISBLK(status.st_mode):
        raise InvalidArgument(f"cannot limit device {path}", why="it is not a block device")
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def _plan_memory(layout: Layout, wanted: Resources) -> Iterable[Write]:
    limit, total, low = wanted.memory_bytes, wanted.memory_swap_bytes, wanted.memory_reservation_bytes
    if total and limit is None:
        raise InvalidArgument("a limit of memory and swap needs a limit of memory", hint="add --memory")
    if total and total > 0 and limit and total < limit:
        raise InvalidArgument("the limit of memory and swap is below that of memory alone", hint="raise --memory-swap")
    if limit and low and 0 < limit < low:
        raise InvalidArgument("the memory reservation is above the memory limit", hint="lower --memory-reservation")
    if not limit and not low:
        return ()
    version = require(layout, "memory", purpose="limit memory")
    plan = _memory_v1 if version == 1 else _memory_v2
    return plan(limit or 0, total or 0, low=low or 0)


def _memory_v1(limit: int, total: int, *, low: int) -> Iterable[Write]:
    if limit:
        yield Write(controller="memory", version=1, file="memory.limit_in_bytes", value=str(limit))
        # Unless asked otherwise no swap: a container that swaps slows down everybody else's disk.
        swap = str(total or limit)
        yield Write(
            controller="memory", version=1, file="memory.memsw.limit_in_bytes", value=swap, optional=not total
        )  # fmt: skip
    if low:
        yield Write(controller="memory", version=1, file="memory.soft_limit_in_bytes", value=str(low))


def _memory_v2(limit: int, total: int, *, low: int) -> Iterable[Write]:
    if limit:
        yield Write(controller="memory", version=2, file="memory.max", value=_or_max(limit))
        swap = _UNLIMITED if _UNLIMITED in (total, limit) else max(total - limit, 0)
        yield Write(controller="memory", version=2, file="memory.swap.max", value=_or_max(swap), optional=not total)
        # One process killed out of a dozen leaves a container that neither works nor ends.
        yield Write(controller="memory", version=2, file="memory.oom.group", value="1", optional=True)
    if low:
        yield Write(controller="memory", version=2, file="memory.low", value=_or_max(low))


def _plan_cpu(layout: Layout, wanted: Resources) -> Iterable[Write]:
    shares, quota, period = wanted.cpu_shares, wanted.cpu_quota_us, wanted.cpu_period_us
    if not shares and not quota and not period:
        return
    version = require(layout, "cpu", purpose="limit the processor")
    if shares and version == 1:
        yield Write(controller="cpu", version=1, file="cpu.shares", value=str(shares))
    elif shares:
        yield Write(controller="cpu", version=2, file="cpu.weight", value=str(weight_from_shares(shares)))
    if version == 1 and period:
        yield Write(controller="cpu", version=1, file="cpu.cfs_period_us", value=str(period))
    if version == 1 and quota:
        yield Write(controller="cpu", version=1, file="cpu.cfs_quota_us", value=str(quota))
    if version == 2 and (quota or period):
        value = f"{quota if quota and quota > 0 else 'max'} {period or 100_000}"
        yield Write(controller="cpu", version=2, file="cpu.max", value=value)


def _plan_cpuset(layout: Layout, wanted: Resources) -> Iterable[Write]:
    for file, value in (("cpuset.cpus", wanted.cpuset_cpus), ("cpuset.mems", wanted.cpuset_mems)):
        if value:
            version = require(layout, "cpuset", purpose="choose processors")
            yield Write(controller="cpuset", version=version, file=file, value=value)


def _plan_pids(layout: Layout, wanted: Resources) -> Iterable[Write]:
    limit = wanted.pids_limit
    if limit is None:
        return
    if limit == 0 or limit < _UNLIMITED:
        raise InvalidArgument(f"invalid limit of processes: {limit}", hint="use a positive number, or -1 for no limit")
    if limit == _UNLIMITED and not layout.version_of("pids"):
        return
    version = require(layout, "pids", purpose="limit the number of processes")
    yield Write(controller="pids", version=version, file="pids.max", value=_or_max(limit))


def _plan_weight(layout: Layout, wanted: Resources) -> Iterable[Write]:
    weight = wanted.blkio_weight
    if not weight:
        return
    if not 10 <= weight <= 1000:
        raise InvalidArgument(f"invalid weight of block devices: {weight}", hint="use a number from 10 to 1000")
    if require(layout, "blkio", purpose="weigh disk access") == 1:
        # blkio.weight went with the CFQ scheduler (Linux 5.0); BFQ has the same scale under its own name.
        yield Write(
            controller="blkio", version=1, file="blkio.bfq.weight", value=str(weight), other_file="blkio.weight",
            other_value=str(weight),
        )  # fmt: skip
    else:
        yield Write(
            controller="io", version=2, file="io.bfq.weight", value=str(weight), other_file="io.weight",
            other_value=f"default {io_weight_from_blkio(weight)}",
        )  # fmt: skip


def _plan_rates(layout: Layout, wanted: Resources, *, device_number: Callable[[str], str]) -> Iterable[Write]:
    kinds = {
        "read_bps": ("rbps", wanted.read_bps), "write_bps": ("wbps", wanted.write_bps),
        "read_iops": ("riops", wanted.read_iops), "write_iops": ("wiops", wanted.write_iops),
    }  # fmt: skip
    if not any(rates for _word, rates in kinds.values()):
        return ()
    if require(layout, "blkio", purpose="limit disk throughput") == 1:
        return [
            Write(
                controller="blkio", version=1, file=f"blkio.throttle.{kind}_device",
                value=f"{device_number(rate.path)} {rate.rate}",
            )
            for kind, (_word, rates) in kinds.items()
            for rate in rates
        ]  # fmt: skip
    return _rates_v2(dict(kinds.values()), device_number)


def _rates_v2(kinds: Mapping[str, tuple[DeviceRate, ...]], device_number: Callable[[str], str]) -> list[Write]:
    lines: dict[str, list[str]] = {}
    for word, rates in kinds.items():
        for rate in rates:
            lines.setdefault(device_number(rate.path), []).append(f"{word}={rate.rate or 'max'}")
    return [
        Write(controller="io", version=2, file="io.max", value=f"{device} {' '.join(words)}")
        for device, words in lines.items()
    ]


def _plan_values(layout: Layout, wanted: Resources) -> Iterable[Write]:
    for value in wanted.values:
        name = value.v1 or value.v2
        version = require(layout, value.controller, purpose=f"set {name}")
        file = value.v1 if version == 1 else value.v2
        if not file:
            raise Unsupported(f"cannot set {name}", why=f"control groups of version {version} have no such file")
        controller = "io" if version == 2 and value.controller == "blkio" else value.controller
        yield Write(controller=controller, version=version, file=file, value=value.value)


def _plan_devices(layout: Layout, rules: tuple[DeviceRule, ...]) -> Iterable[Write]:
    if not rules or require(layout, "devices", purpose="restrict devices") == 2:
        return
    for rule in rules:
        file = "devices.allow" if rule.allow else "devices.deny"
        for value in _device_lines(rule):
            yield Write(controller="devices", version=1, file=file, value=value)


def _device_lines(rule: DeviceRule) -> Iterable[str]:
    """The rule as cgroup-v1/devices.rst wants it, where the type ``a`` ignores everything behind it."""
    whole = rule.major is None and rule.minor is None and set("rwm") <= set(rule.access)
    if rule.type == "a" and whole:
        return ("a",)
    numbers = f"{'*' if rule.major is None else rule.major}:{'*' if rule.minor is None else rule.minor}"
    # The specification's "u" is an unbuffered character device; a pipe ("p") is no device to the kernel.
    kinds = {"a": "cb", "u": "c", "p": ""}.get(rule.type, rule.type)
    return [f"{kind} {numbers} {rule.access}" for kind in kinds]


def _or_max(number: int) -> str:
    return "max" if number == _UNLIMITED else str(number)
