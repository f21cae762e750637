"""What plans need to know of this machine, read once a process, and of this process, which may change: each time."""

from __future__ import annotations

import os

from cloison.model.record import Record

UNLIMITED = -1
_SYS_RESOURCE = 1 << 24  # capabilities(7), CAP_SYS_RESOURCE
_CPUS = "/sys/devices/system/cpu"


class HostFacts(Record):
    """The defaults describe an all-mighty process on a recent kernel: tests and ``--dry-run`` plan with them."""

    uid: int = 0
    permitted: int = (1 << 41) - 1  # our capabilities, one bit each
    last_capability: int = 40
    hard_limits: tuple[int, ...] = (UNLIMITED,) * 16  # index is the RLIMIT_ number; -1 is unlimited
    oom_score_adj: int = 0
    has_time_namespace: bool = True
    has_ipv6: bool = True
    throttled_cpus: tuple[str, ...] = ()  # "cpu0" … whose thermal_throttle counters tell what the neighbours do

    @property
    def may_raise_limits(self) -> bool:
        return bool(self.permitted & _SYS_RESOURCE)


# A cache, not state: what this process was the last time we looked, and what follows from that.
_known: dict[tuple[int, int, bytes, bytes], HostFacts] = {}


def read_facts() -> HostFacts:
    """Ask the kernel. Raises: OSError where /proc is not mounted."""
    limits, oom = _read("/proc/self/limits"), _read("/proc/self/oom_score_adj")
    own = (os.geteuid(), _permitted(_read("/proc/self/status")), limits, oom)
    known = _known.get(own)
    if known is None:
        _known.clear()
        known = _known[own] = _work_out(*own)
    return known


def _work_out(uid: int, permitted: int, limits: bytes, oom: bytes) -> HostFacts:
    return HostFacts(
        uid=uid,
        permitted=permitted,
        last_capability=int(_read("/proc/sys/kernel/cap_last_cap")),
        hard_limits=_hard_limits(limits),
        oom_score_adj=int(oom),
        has_time_namespace=os.access("/proc/self/ns/time", os.F_OK),
        has_ipv6=os.access("/proc/sys/net/ipv6", os.F_OK),
        throttled_cpus=_throttled_cpus(),
    )


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1 << 14)
    finally:
        os.close(fd)


def _permitted(status: bytes) -> int:
    start = status.index(b"\nCapPrm:") + 8
    return int(status[start : status.index(b"\n", start)], 16)


def _hard_limits(limits: bytes) -> tuple[int, ...]:
    """The second number of each line; the lines come in the order of the RLIMIT_ numbers (fs/proc/base.c, lnames)."""
    hard = []
    for line in limits.splitlines()[1:17]:
        word = line[47:68].strip()  # "%-25s %-20s %-20s %-10s": name, soft, hard, unit
        hard.append(UNLIMITED if word == b"unlimited" else int(word))
    return tuple(hard)


def _throttled_cpus() -> tuple[str, ...]:
    if not os.access(f"{_CPUS}/cpu0/thermal_throttle", os.F_OK):
        return ()
    numbered = [name for name in os.listdir(_CPUS) if name.startswith("cpu") and name[3:].isdecimal()]
    return tuple(sorted(numbered, key=lambda name: int(name[3:])))
