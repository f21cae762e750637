"""Sizes, durations and times as the field writes them. Pure; what does not parse is a ValueError with the reason."""

from __future__ import annotations

import time

SECOND_NS = 1_000_000_000
_BINARY = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_DURATION_NS = {
    "h": 3600 * SECOND_NS, "m": 60 * SECOND_NS, "s": SECOND_NS, "ms": 1_000_000, "us": 1000, "µs": 1000, "μs": 1000,
    "ns": 1,
}  # fmt: skip
_DIGITS = frozenset("0123456789")


def parse_size(text: str) -> int:
    """``64m``, ``1.5g``, ``64MiB``, ``512`` in bytes; every unit is binary (go-units, RAMInBytes)."""
    body = text.strip()
    if body == "-1":  # --memory-swap -1 is "no limit"
        return -1
    body = body.lower()
    body = body.removesuffix("b")
    body = body.removesuffix("i") if body[-2:-1] in _BINARY and body[-2:-1] else body
    unit = body[-1:] if body[-1:] in _BINARY else ""
    number = body[: len(body) - len(unit)].rstrip(" ")
    whole, fraction = _decimal(number, f"invalid size: '{text}'")
    scale: int = 10 ** len(fraction)
    return ((whole * scale + int(fraction or 0)) << _BINARY[unit]) // scale


def parse_decimal_nano(text: str) -> int:
    """``0.5`` in billionths, exactly (docker's ``--cpus``)."""
    whole, fraction = _decimal(text, f"failed to parse {text} as a rational number")
    if len(fraction) > 9:
        raise ValueError("value is too precise")
    return whole * SECOND_NS + int(fraction.ljust(9, "0"))


def _decimal(text: str, reason: str) -> tuple[int, str]:
    whole, point, fraction = text.partition(".")
    if not whole + fraction or not _DIGITS.issuperset(whole + fraction) or (point and not fraction):
        raise ValueError(reason)
    return int(whole or 0), fraction


def parse_duration_ns(text: str) -> int:
    """``1m30s``, ``1.5h``, ``-10s``, ``0`` in nanoseconds (Go's time.ParseDuration)."""
    reason = f'time: invalid duration "{text}"'
    body = text.lstrip("+-")
    if len(text) - len(body) > 1 or not body:
        raise ValueError(reason)
    if body == "0":
        return 0
    total = 0
    while body:
        number_end = _span(body, _DIGITS | {"."})
        unit_end = number_end + _span(body[number_end:], frozenset("hmsuµμn"))
        unit = body[number_end:unit_end]
        if unit not in _DURATION_NS:
            raise ValueError(f'time: missing unit in duration "{text}"' if not unit else reason)
        whole, fraction = _decimal(body[:number_end], reason)
        total += whole * _DURATION_NS[unit] + int(fraction or 0) * _DURATION_NS[unit] // 10 ** len(fraction)
        body = body[unit_end:]
    return -total if text[0] == "-" else total


def _span(text: str, letters: frozenset[str]) -> int:
    count = 0
    while count < len(text) and text[count] in letters:
        count += 1
    return count


def parse_when_ns(text: str, *, now_ns: int) -> int:
    """A moment for ``--since`` and ``--until`` in ns since the epoch.

    ``10m`` (ago), ``1700000000.25`` (Unix seconds), ``2026-11-23T15:04:05.5Z``, or its shorter forms down to the day;
    without a zone the machine's own applies.
    """
    try:
        return now_ns - parse_duration_ns(text) if text != "0" else 0
    except ValueError:
        pass
    try:
        whole, fraction = _decimal(text, "")
        return whole * SECOND_NS + int(fraction[:9].ljust(9, "0"))
    except ValueError:
        pass
    return parse_rfc3339_ns(text)


def parse_rfc3339_ns(text: str) -> int:
    """RFC 3339, and the same cut short after day, hour or minute. Raises: ValueError."""
    reason = f'failed to parse value as time or duration: "{text}"'
    day, _, clock = text.replace(" ", "T", 1).upper().partition("T")
    clock, offset_s = _split_zone(clock, reason)
    clock, _, fraction = clock.partition(".")
    numbers = [*day.split("-"), *(clock.split(":") if clock else [])]
    if not 3 <= len(numbers) <= 6 or not all(n and _DIGITS.issuperset(n) for n in numbers):
        raise ValueError(reason)
    if len(numbers[0]) != 4 or any(len(n) > 2 for n in numbers[1:]):
        raise ValueError(reason)
    if fraction and not _DIGITS.issuperset(fraction):
        raise ValueError(reason)
    year, month, mday, hour, minute, second = [int(n) for n in numbers] + [0] * (6 - len(numbers))
    if not (1 <= month <= 12 and 1 <= mday <= 31 and hour < 25 and minute < 60 and second < 61):
        raise ValueError(reason)
    nanos = int(fraction[:9].ljust(9, "0") or 0)
    if offset_s is None:
        return int(time.mktime((year, month, mday, hour, minute, second, 0, 0, -1))) * SECOND_NS + nanos
    seconds = _days(year, month, mday) * 86400 + hour * 3600 + minute * 60 + second - offset_s
    return seconds * SECOND_NS + nanos


def _split_zone(clock: str, reason: str) -> tuple[str, int | None]:
    if clock.endswith("Z"):
        return clock[:-1], 0
    at = max(clock.rfind("+"), clock.rfind("-"))
    if at < 0:
        return clock, None
    hours, _, minutes = clock[at + 1 :].partition(":")
    if not (_DIGITS.issuperset(hours + minutes) and len(hours) == 2 and len(minutes) == 2):
        raise ValueError(reason)
    seconds = int(hours) * 3600 + int(minutes) * 60
    return clock[:at], -seconds if clock[at] == "-" else seconds


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 of a date in the Gregorian calendar."""
    year -= month <= 2
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


def render_rfc3339(moment_ns: int, *, fixed: bool = False) -> str:
    """``2026-11-23T15:04:05.000000001Z``; trailing zeros go unless ``fixed``. 0 is Docker's "never"."""
    if not moment_ns:
        return "0001-01-01T00:00:00Z"
    seconds, nanos = divmod(moment_ns, SECOND_NS)
    fraction = f"{nanos:09d}"
    if not fixed:
        fraction = fraction.rstrip("0")
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + (f".{fraction}Z" if fraction else "Z")


def render_age(duration_s: float) -> str:
    """``5 seconds``, ``About an hour``, ``3 weeks`` (go-units, HumanDuration)."""
    seconds = int(duration_s)
    minutes = seconds // 60
    hours = int(duration_s / 3600 + 0.5)
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    return f"{days // 30} months" if days < 730 else f"{days // 365} years"


def render_size(count: int, *, precision: int = 3) -> str:
    """``117MB``: decimal units, as docker's image list."""
    value, unit = float(count), 0
    while value >= 1000 and unit < 5:
        value /= 1000
        unit += 1
    text = f"{value:.{precision}g}"
    if "e" in text:  # 999.6 kB rounds to 1e+03
        text = str(round(value))
    return text + ("B", "kB", "MB", "GB", "TB", "PB")[unit]


def render_binary_size(count: int) -> str:
    """``64MiB``: binary units, for limits."""
    value, unit = float(count), 0
    while value >= 1024 and unit < 5:
        value /= 1024
        unit += 1
    return f"{value:.4g}" + ("B", "KiB", "MiB", "GiB", "TiB", "PiB")[unit]
