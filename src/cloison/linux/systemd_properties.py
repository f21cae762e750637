"""From limits to the properties of a systemd unit, so that systemd keeps what it would else put back. Pure.

Sources: systemd.resource-control(5), org.freedesktop.systemd1(5); for the annotations runc's docs/systemd.md.
"""

from __future__ import annotations

from cloison.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from cloison.linux.cgroup_limits import Write
    from cloison.oci.runtime import DeviceRule

    Property = tuple[str, tuple[str, Any]]  # name, (D-Bus signature, value)

_UNLIMITED = (1 << 64) - 1
_SECOND_US = 1_000_000
# Control files with one number, or "max"
_NUMBERS = {
    "memory.max": "MemoryMax", "memory.high": "MemoryHigh", "memory.low": "MemoryLow", "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax", "memory.limit_in_bytes": "MemoryLimit", "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight", "cpu.shares": "CPUShares", "io.weight": "IOWeight", "io.bfq.weight": "IOWeight",
}  # fmt: skip
_SETS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
_RATES = {
    "rbps": "IOReadBandwidthMax", "wbps": "IOWriteBandwidthMax", "riops": "IOReadIOPSMax", "wiops": "IOWriteIOPSMax",
}  # fmt: skip
_ANNOTATION = "org.systemd.property."
_TYPES = {
    "byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "int64": "x", "uint64": "t",
    "string": "s", "objectpath": "o",
}  # fmt: skip


def properties_of(writes: Iterable[Write]) -> list[Property]:
    """Those of the writes that systemd has a property for; what it does not know it does not touch."""
    found: dict[str, tuple[str, Any]] = {}
    rates: dict[str, list[tuple[str, int]]] = {}
    values = {write.file: write.other_value or write.value for write in writes}
    for file, value in values.items():
        if file in _NUMBERS:
            number = value.rpartition(" ")[2]
            if number.isdigit() or number in ("max", "-1"):  # not 10M, which the kernel reads as well
                found[_NUMBERS[file]] = ("t", _number(number))
        elif file in _SETS:
            found[_SETS[file]] = ("ay", parse_set(value))
        elif file == "cpu.max":
            quota, _, period = value.partition(" ")
            found.update(_quota(_number(quota), int(period or "100000")))
        elif file == "cpu.cfs_quota_us":
            found.update(_quota(_number(value), int(values.get("cpu.cfs_period_us", "100000"))))
    for write in writes:
        if write.file == "io.max":
            device, *words = write.value.split()
            for word in words:
                name, _, rate = word.partition("=")
                rates.setdefault(_RATES[name], []).append((f"/dev/block/{device}", _number(rate)))
    return [*found.items(), *((name, ("a(st)", limits)) for name, limits in rates.items())]


def _number(text: str) -> int:
    return _UNLIMITED if text in ("max", "-1") else int(text)


def _quota(quota: int, period: int) -> dict[str, tuple[str, Any]]:
    """CPU time in a second. systemd keeps whole percents: rounded up, so that a group below can be given all of it."""
    per_second = _UNLIMITED
    if quota != _UNLIMITED:
        percent = _SECOND_US // 100
        per_second = -(-quota * _SECOND_US // (period * percent)) * percent
    return {"CPUQuotaPerSecUSec": ("t", per_second), "CPUQuotaPeriodUSec": ("t", period)}


def parse_set(text: str) -> list[int]:
    """ "0-2,8" as a mask, lowest byte first: [7, 1]. Raises: InvalidArgument."""
    mask = 0
    for part in text.replace("\n", "").split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last) if dash else (first, first)
        if not all(end.isascii() and end.isdigit() for end in ends) or not int(ends[0]) <= int(ends[1]) < 1 << 16:
            raise InvalidArgument(f"invalid set {text[:64]!r}", hint="write it as 0-2,8")
        low, high = map(int, ends)
        mask |= ((1 << (high - low + 1)) - 1) << low
    return list(mask.to_bytes(-(-mask.bit_length() // 8) or 1, "little"))


def device_properties(rules: Iterable[DeviceRule], *, names: Mapping[tuple[str, int], str]) -> list[Property]:
    """The device rules as an allow-list; none where they are no such list: then our own filter says it all.

    ``names``: ("c" or "b", major number) -> the driver's name in /proc/devices, for rules that take every minor number.
    """
    allowed: list[tuple[str, str]] = []
    for rule in rules:
        whole = rule.type == "a" and rule.major is None and rule.minor is None
        if whole and not rule.allow:
            allowed = []
        elif whole or not rule.allow:
            return []  # everything is allowed, or all but something
        else:
            for kind in {"a": "cb", "u": "c", "p": ""}.get(rule.type, rule.type):
                node = _node(kind, rule, names)
                if not node:
                    return []
                allowed.append((node, rule.access))
    return [("DevicePolicy", ("s", "strict")), ("DeviceAllow", ("a(ss)", allowed))]


def _node(kind: str, rule: DeviceRule, names: Mapping[tuple[str, int], str]) -> str:
    word = "char" if kind == "c" else "block"
    if rule.major is None:
        return "" if rule.minor is not None else f"{word}-*"
    if rule.minor is not None:
        return f"/dev/{word}/{rule.major}:{rule.minor}"
    name = names.get((kind, rule.major), "")
    return f"{word}-{name}" if name else ""


def parse_devices(text: str) -> dict[tuple[str, int], str]:
    """Names of the drivers by kind and major number (/proc/devices)."""
    kind, found = "c", {}
    for line in text.splitlines():
        number, _, name = line.strip().partition(" ")
        if number.isdigit():
            found[kind, int(number)] = name
        elif line.startswith("Block"):
            kind = "b"
    return found


def annotated_properties(annotations: Mapping[str, str]) -> list[Property]:
    """``org.systemd.property.NAME`` annotations; NAMESec in seconds is sent as NAMEUSec. Raises: InvalidArgument."""
    found: list[Property] = []
    for key, text in annotations.items():
        name = key.removeprefix(_ANNOTATION)
        if name == key:
            continue
        if len(name) < 3 or not (name.isascii() and name.isalnum() and name[0].isupper()):
            raise InvalidArgument(f"invalid annotation {key[:64]!r}", why="it does not end with a property's name")
        try:
            signature, value = parse_variant(text)
            if name.endswith("Sec") and name[-4].islower():
                name, signature, value = f"{name[:-3]}USec", "t", int(value * _SECOND_US)
        except (ValueError, TypeError) as err:
            raise InvalidArgument(
                f"invalid annotation {key[:64]!r}", why=f"cannot read its value {text[:64]!r}"
            ) from err
        found.append((name, (signature, value)))
    return found


def parse_variant(text: str) -> tuple[str, Any]:
    """One value in GVariant's text form: 'text', true, 5, uint64 5, 1.5, ['a', 'b']. Raises: ValueError."""
    text = text.strip()
    word, _, rest = text.partition(" ")
    if word in _TYPES:
        inner = parse_variant(rest)[1]
        if isinstance(inner, str) != (word in ("string", "objectpath")):
            raise ValueError(text)
        return _TYPES[word], inner
    if text in ("true", "false"):
        return "b", text == "true"
    if text[:1] in ("'", '"') and len(text) > 1:
        if text[-1] != text[0] or text[0] in text[1:-1] or "\\" in text:
            raise ValueError(text)
        return "s", text[1:-1]
    if text[:1] == "[" and text[-1:] == "]":
        members = [parse_variant(member) for member in text[1:-1].split(",")]
        if len({signature for signature, _value in members}) != 1:
            raise ValueError(text)
        return f"a{members[0][0]}", [value for _signature, value in members]
    return ("d", float(text)) if "." in text else ("i", int(text))
