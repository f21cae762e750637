"""Flags about limits and devices: ``-m``, ``--cpus``, ``--ulimit``, ``--device``, ``--device-read-bps``, …"""

from __future__ import annotations

from cloison.errors import Conflict, InvalidArgument
from cloison.model.container import DeviceRate, DeviceRequest, Resources, Ulimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloison.cli.call import Call

CPU_PERIOD_US = 100_000
ULIMITS = (
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip
_NUMBERS = {
    "memory": "memory_bytes", "memory-reservation": "memory_reservation_bytes", "cpu-shares": "cpu_shares",
    "cpu-quota": "cpu_quota_us", "cpu-period": "cpu_period_us", "blkio-weight": "blkio_weight",
}  # fmt: skip


def resources(call: Call, *, exists: bool = False) -> Resources:
    """The limits asked for; 0 means "no limit", as in docker. Raises: InvalidArgument, Conflict, UsageError.

    ``exists``: they are for a container that has limits, with which they must agree.
    """
    fields: dict[str, Any] = {}
    for flag, field in _NUMBERS.items():
        number = call.number(flag)
        if number is not None and number < 0 and flag != "cpu-quota":
            raise InvalidArgument(f"--{flag} cannot be negative")
        if number:
            fields[field] = number
    _add_swap(call, fields, exists=exists)
    _add_cpus(call, fields)
    for flag, field in (("cpuset-cpus", "cpuset_cpus"), ("cpuset-mems", "cpuset_mems")):
        if call.text(flag):
            fields[field] = call.text(flag)
    for flag, parse in (("bps", parse_bytes_rate), ("iops", parse_operations_rate)):
        for way in ("read", "write"):
            if call.given(f"device-{way}-{flag}"):
                fields[f"{way}_{flag}"] = call.each(f"device-{way}-{flag}", parse)
    _add_counts(call, fields)
    return Resources(**fields)


def _add_swap(call: Call, fields: dict[str, Any], *, exists: bool) -> None:
    swap, memory = call.number("memory-swap"), fields.get("memory_bytes")
    if not swap:
        return
    if memory is None and swap > 0 and not exists:
        raise InvalidArgument(
            "--memory-swap needs --memory", hint="set --memory too: the value counts memory plus swap"
        )
    if memory is not None and 0 < swap < memory:
        raise InvalidArgument(
            "minimum memoryswap limit should be larger than memory limit", hint="it counts memory plus swap"
        )
    fields["memory_swap_bytes"] = swap


def _add_cpus(call: Call, fields: dict[str, Any]) -> None:
    nano = call.number("cpus")
    if not nano:
        return
    for flag in ("cpu-period", "cpu-quota"):
        if call.number(flag):
            raise Conflict(f"conflicting options: --cpus and --{flag} cannot both be set")
    if nano < 10_000_000:  # the kernel takes no quota below 1 ms
        raise InvalidArgument("--cpus must be at least 0.01")
    fields["cpu_period_us"] = CPU_PERIOD_US
    fields["cpu_quota_us"] = nano * CPU_PERIOD_US // 1_000_000_000


def _add_counts(call: Call, fields: dict[str, Any]) -> None:
    pids = call.number("pids-limit")
    if pids is not None:
        if pids == 0 or pids < -1:
            raise InvalidArgument("--pids-limit must be a positive number", hint="-1 is unlimited")
        fields["pids_limit"] = pids
    weight = fields.get("blkio_weight")
    if weight is not None and not 10 <= weight <= 1000:
        raise InvalidArgument("range of blkio weight is from 10 to 1000")
    score = call.number("oom-score-adj")
    if score is not None:
        if not -1000 <= score <= 1000:
            raise InvalidArgument(f"invalid value {score}, range for oom score adj is [-1000, 1000]")
        fields["oom_score_adj"] = score


def parse_device(text: str) -> DeviceRequest:
    """``SOURCE[:TARGET][:rwm]``. Raises: ValueError."""
    parts = text.split(":")
    source, target, access = parts[0], parts[0], "rwm"
    if len(parts) > 3 or not source:
        raise ValueError(f"invalid device specification: {text}")
    if not source.startswith("/"):
        raise ValueError(f"invalid device specification: {text}: '{source}' is not an absolute path")
    if len(parts) == 2 and _is_access(parts[1]):
        access = parts[1]
    elif len(parts) >= 2:
        target = parts[1]
    if len(parts) == 3:
        access = parts[2]
    if not _is_access(access):
        raise ValueError(f"bad mode specified: {access}")
    if not target.startswith("/"):
        raise ValueError(f"invalid device specification: {text}: '{target}' is not an absolute path")
    return DeviceRequest(source=source, target=target, access=access)


def _is_access(text: str) -> bool:
    return bool(text) and set(text) <= set("rwm") and len(set(text)) == len(text)


def parse_ulimit(text: str) -> Ulimit:
    """``name=soft[:hard]``, -1 or unlimited for no limit. Raises: ValueError."""
    name, equals, values = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    soft_text, colon, hard_text = values.partition(":")
    soft = _limit(soft_text, text)
    hard = _limit(hard_text, text) if colon else soft
    if hard >= 0 and (soft > hard or soft < 0):
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft_text} > {hard}")
    return Ulimit(name=name, soft=soft, hard=hard)


def _limit(text: str, whole: str) -> int:
    if text in ("-1", "unlimited"):
        return -1
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        raise ValueError(f"invalid ulimit value in {whole}: '{text}' is not a number")
    return int(text)


def parse_bytes_rate(text: str) -> DeviceRate:
    """``/dev/sda:1mb``, bytes per second. Raises: ValueError."""
    from cloison.model.units import parse_size

    path, rate = _rate(text)
    try:
        return DeviceRate(path=path, rate=_positive(parse_size(rate)))
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. "
            "Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        ) from None


def parse_operations_rate(text: str) -> DeviceRate:
    """``/dev/sda:100``, operations per second. Raises: ValueError."""
    path, rate = _rate(text)
    try:
        return DeviceRate(path=path, rate=_positive(int(rate)))
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. "
            "Number must be a positive integer"
        ) from None


def _rate(text: str) -> tuple[str, str]:
    path, colon, rate = text.rpartition(":")
    if not colon or not rate:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    return path, rate


def _positive(number: int) -> int:
    if number <= 0:
        raise ValueError("not positive")
    return number
