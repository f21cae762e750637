"""Which control group hierarchies this machine has, and where: version 1, version 2, or both (hybrid)."""

from __future__ import annotations

import os

from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Version 1 hierarchies that every container is in: what bounds it or tells its end. Each further one costs a directory,
# a move of the process and a mount inside, together a tenth of a start; they are joined when they are asked for.
_ALWAYS = ("memory", "devices", "pids")
# Where a version 2 tree stands beside, it freezes, kills and counts processor time for every group (cgroup-v2.rst).
_WITHOUT_UNIFIED = ("freezer", "cpuacct")
_OTHERS = ("cpu", "blkio", "cpuset", "net_cls", "net_prio", "perf_event", "hugetlb", "rdma", "misc")
_KNOWN = (*_ALWAYS, *_WITHOUT_UNIFIED, *_OTHERS)


class Layout(Record):
    """Where control groups are made. ``hybrid`` is: some controllers on version 1, and a version 2 tree besides."""

    legacy: Mapping[str, str] = {}  # version 1 controller -> mount point; some share one
    unified: str = ""  # mount point of version 2, or ""
    unified_controllers: tuple[str, ...] = ()  # what version 2 offers at its root: cpu io memory pids …

    def version_of(self, controller: str) -> int:
        """1 or 2, whichever has the controller (by its version 1 name); 0 when this machine has none."""
        if controller in self.legacy:
            return 1
        if not self.unified:
            return 0
        # On version 2 the device filter is a BPF program and the freezer is part of every directory.
        inborn = controller in ("devices", "freezer")
        return 2 if inborn or {"blkio": "io"}.get(controller, controller) in self.unified_controllers else 0

    def hierarchies(self, wanted: Iterable[str] = ()) -> tuple[str, ...]:
        """Version 1 mount points that a container needs a directory in, each once; ``wanted`` are controllers."""
        names = (*_ALWAYS, *wanted) if self.unified else (*_ALWAYS, *_WITHOUT_UNIFIED, *wanted)
        return tuple(dict.fromkeys(self.legacy[name] for name in names if name in self.legacy))

    def all_roots(self) -> tuple[str, ...]:
        """Every mount point in which a directory of ours may be, version 2 first."""
        legacy = self.hierarchies(self.legacy)
        return (self.unified, *legacy) if self.unified else legacy

    @property
    def controllers(self) -> tuple[str, ...]:
        """All controllers there are, for messages."""
        return tuple(sorted({*self.legacy, *self.unified_controllers}))


# A cache, not state: hierarchies are mounted when a machine boots and stay. Reading them is a tenth of a start.
_own: list[Layout] = []


def read_layout() -> Layout:
    """The hierarchies of this machine, read once a process. Raises: OSError."""
    if not _own:
        _own.append(parse_layout())
    return _own[0]


def parse_layout(mountinfo: str = "/proc/self/mountinfo") -> Layout:
    """The hierarchies mounted in a mount namespace (proc_pid_mountinfo(5), cgroups(7)). Raises: OSError."""
    with open(mountinfo, "rb", buffering=0) as file:
        text = file.readall()
    legacy: dict[str, str] = {}
    unified = ""
    for line in text.split(b"\n"):
        if b" - cgroup" not in line:
            continue
        fields, _, rest = line.partition(b" - ")
        kind, _, _ = rest.partition(b" ")
        target = _unescape(fields.split(b" ")[4])
        if kind == b"cgroup2":
            unified = unified or target  # the first one: later mounts are views of the same tree
        elif kind == b"cgroup":
            for option in rest.rsplit(b" ", 1)[1].decode().split(","):
                if option in _KNOWN:
                    legacy.setdefault(option, target)
    return Layout(legacy=legacy, unified=unified, unified_controllers=_offered(unified))


def _offered(unified: str) -> tuple[str, ...]:
    if not unified:
        return ()
    try:
        with open(os.path.join(unified, "cgroup.controllers"), "rb", buffering=0) as file:
            return tuple(file.readall().decode().split())
    except OSError:  # hidden from us: then it offers nothing
        return ()


def _unescape(text: bytes) -> str:
    r"""Blank, tab, newline and backslash are written as \ooo (getmntent(3))."""
    first, *others = text.split(b"\\")
    parts = [first, *(bytes((int(part[:3], 8),)) + part[3:] for part in others)]
    return os.fsdecode(b"".join(parts))
