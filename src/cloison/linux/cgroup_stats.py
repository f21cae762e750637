"""What a control group has used and may use, in the shape of runc's ``events`` (cgroup-v1/*.rst, cgroup-v2.rst)."""

from __future__ import annotations

from cloison.linux.cgroup_processes import read_field, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloison.linux.cgroup_layout import Layout

_UNLIMITED = (1 << 64) - 1
_TICK_NS = 10_000_000  # of cpuacct.stat: USER_HZ is 100 everywhere


def read_stats(layout: Layout, path: str) -> dict[str, Any]:
    """cpu, memory, pids, blkio; what the machine does not count is 0, or left out."""
    return {
        "cpu": _cpu_v1(layout, path) if layout.version_of("cpuacct") == 1 else _cpu_v2(f"{layout.unified}/{path}"),
        "memory": _memory_v1(f"{layout.legacy['memory']}/{path}")
        if layout.version_of("memory") == 1
        else _memory_v2(f"{layout.unified}/{path}"),
        "pids": _pids(layout, path),
        "blkio": _blkio(layout, path),
        "hugetlb": {},
    }


def _cpu_v1(layout: Layout, path: str) -> dict[str, Any]:
    directory = f"{layout.legacy['cpuacct']}/{path}"
    throttling = f"{layout.legacy.get('cpu', '')}/{path}/cpu.stat"
    return {
        "usage": {
            "total": read_field(f"{directory}/cpuacct.usage", ""),
            "percpu": list(map(int, read_text(f"{directory}/cpuacct.usage_percpu").split())),
            "kernel": read_field(f"{directory}/cpuacct.stat", "system") * _TICK_NS,
            "user": read_field(f"{directory}/cpuacct.stat", "user") * _TICK_NS,
        },
        "throttling": {
            "periods": read_field(throttling, "nr_periods"),
            "throttledPeriods": read_field(throttling, "nr_throttled"),
            "throttledTime": read_field(throttling, "throttled_time"),
        },
    }


def _cpu_v2(directory: str) -> dict[str, Any]:
    file = f"{directory}/cpu.stat"
    return {
        "usage": {
            "total": read_field(file, "usage_usec") * 1000,
            "kernel": read_field(file, "system_usec") * 1000,
            "user": read_field(file, "user_usec") * 1000,
        },
        "throttling": {
            "periods": read_field(file, "nr_periods"),
            "throttledPeriods": read_field(file, "nr_throttled"),
            "throttledTime": read_field(file, "throttled_usec") * 1000,
        },
    }


def _memory_v1(directory: str) -> dict[str, Any]:
    def counter(name: str) -> dict[str, int]:
        return {
            "limit": read_field(f"{directory}/{name}.limit_in_bytes", ""),
            "usage": read_field(f"{directory}/{name}.usage_in_bytes", ""),
            "max": read_field(f"{directory}/{name}.max_usage_in_bytes", ""),
            "failcnt": read_field(f"{directory}/{name}.failcnt", ""),
        }

    raw = _pairs(f"{directory}/memory.stat")
    return {
        "cache": raw.get("cache", 0), "usage": counter("memory"), "swap": counter("memory.memsw"),
        "kernel": counter("memory.kmem"), "kernelTCP": counter("memory.kmem.tcp"), "raw": raw,
    }  # fmt: skip


def _memory_v2(directory: str) -> dict[str, Any]:
    def counter(name: str) -> dict[str, int]:
        return {
            "limit": _limit(f"{directory}/{name}.max"),
            "usage": read_field(f"{directory}/{name}.current", ""),
            "max": read_field(f"{directory}/{name}.peak", ""),
            "failcnt": read_field(f"{directory}/{name}.events", "max"),
        }

    raw = _pairs(f"{directory}/memory.stat")
    return {"cache": raw.get("file", 0), "usage": counter("memory"), "swap": counter("memory.swap"), "raw": raw}


def _pids(layout: Layout, path: str) -> dict[str, int]:
    version = layout.version_of("pids")
    if not version:
        return {}
    directory = f"{layout.legacy['pids'] if version == 1 else layout.unified}/{path}"
    limit = _limit(f"{directory}/pids.max")
    return {"current": read_field(f"{directory}/pids.current", ""), "limit": 0 if limit == _UNLIMITED else limit}


def _blkio(layout: Layout, path: str) -> dict[str, Any]:
    version = layout.version_of("blkio")
    if version == 1:
        directory = f"{layout.legacy['blkio']}/{path}"
        return {
            "ioServiceBytesRecursive": _operations(f"{directory}/blkio.throttle.io_service_bytes_recursive"),
            "ioServicedRecursive": _operations(f"{directory}/blkio.throttle.io_serviced_recursive"),
        }
    entries: list[dict[str, Any]] = []
    if version == 2:
        for line in read_text(f"{layout.unified}/{path}/io.stat").splitlines():
            number, *words = line.split()
            counts = dict(word.partition("=")[::2] for word in words)
            entries += [
                _entry(number, op, counts[key])
                for op, key in (("Read", "rbytes"), ("Write", "wbytes"))
                if key in counts
            ]
    return {"ioServiceBytesRecursive": entries}


def _operations(file: str) -> list[dict[str, Any]]:
    rows = (line.split() for line in read_text(file).splitlines())
    return [_entry(*row) for row in rows if len(row) == 3]


def _entry(number: str, operation: str, value: str) -> dict[str, Any]:
    major, _, minor = number.partition(":")
    return {"major": int(major), "minor": int(minor), "op": operation, "value": int(value)}


def _limit(file: str) -> int:
    text = read_text(file).strip()
    return int(text) if text.isdigit() else _UNLIMITED


def _pairs(file: str) -> dict[str, int]:
    rows = (line.split() for line in read_text(file).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}
