"""Looking at containers that run: their processes, and what they use. Counters come from the kernel at each look."""

from __future__ import annotations

import os
import time

from cloison.errors import CloisonError, InvalidArgument, NotFound, Unavailable
from cloison.linux import cgroup_stats, cgroups, command, proc, processes
from cloison.linux.processes import TICKS_PER_S
from cloison.model.activity import ContainerStats, ProcessTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from cloison.linux.cgroups import Layout
    from cloison.linux.processes import ProcessInfo
    from cloison.model.container import ContainerRecord
    from cloison.store.containers import Running

    Counted = dict[str, dict[str, Any]]

_TITLES = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
_DAY_S = 86_400
_NS = 1_000_000_000


def list_processes(running: Running, ps_options: Sequence[str]) -> ProcessTable:
    """Those of one container as the host sees them: as ``ps -ef`` shows them, or with other options of ps(1).

    Raises: InvalidArgument (ps refuses the options, or they leave the pid out), Unsupported (no ps on this machine).
    """
    pids = cgroups.pids(cgroups.read_layout(), running.cgroup)
    if ps_options:
        return _with_ps(pids, ps_options)
    booted_s, user_name = processes.boot_time_s(), _user_names()
    return ProcessTable(titles=_TITLES, rows=tuple(_row(info, booted_s, user_name) for info in _look(pids)))


def _look(pids: Sequence[int]) -> list[ProcessInfo]:
    found = []
    for pid in pids:
        try:
            found.append(processes.read_process(pid))
        except NotFound:
            continue
    return found


def _row(info: ProcessInfo, booted_s: int, user_name: Callable[[int], str]) -> tuple[str, ...]:
    started_s = booted_s + info.start_ticks / TICKS_PER_S
    age_s = max(time.time() - started_s, 1.0)
    cpu_s = info.cpu_ticks // TICKS_PER_S
    started = time.localtime(started_s)
    return (
        user_name(info.user_id), str(info.pid), str(info.parent), str(int(info.cpu_ticks / TICKS_PER_S / age_s * 100)),
        time.strftime("%H:%M" if age_s < _DAY_S else "%b%d", started), info.terminal or "?",
        f"{cpu_s // 3600:02}:{cpu_s // 60 % 60:02}:{cpu_s % 60:02}", info.command,
    )  # fmt: skip


def _user_names() -> Callable[[int], str]:
    import pwd

    known: dict[int, str] = {}

    def name(uid: int) -> str:
        if uid not in known:
            try:
                known[uid] = pwd.getpwuid(uid).pw_name
            except KeyError:
                known[uid] = str(uid)
        return known[uid]

    return name


def _with_ps(pids: Sequence[int], options: Sequence[str]) -> ProcessTable:
    """The host's ps with the caller's options; of its lines those stay whose PID is ours (moby, daemon/top_unix.go)."""
    try:
        lines = command.run(["ps", *options]).decode(errors="surrogateescape").splitlines()
    except Unavailable as err:
        raise InvalidArgument(f"invalid ps options {' '.join(options)!r}", why=err.why) from err
    if not lines:
        raise InvalidArgument(f"invalid ps options {' '.join(options)!r}", why="ps prints nothing")
    titles = lines[0].split()
    if "PID" not in titles:
        raise InvalidArgument("cannot list processes", why="Couldn't find PID field in ps output", hint="add pid to -o")
    column, wanted = titles.index("PID"), {str(pid) for pid in pids}
    split = [line.split(maxsplit=len(titles) - 1) for line in lines[1:]]
    return ProcessTable(
        titles=tuple(titles), rows=tuple(tuple(row) for row in split if len(row) > column and row[column] in wanted)
    )


def read_stats(record: ContainerRecord, running: Running | None) -> ContainerStats:
    """The counters of one container now; all 0 when it does not run."""
    stats = ContainerStats(id=record.id, name=record.name)
    if running is None or not proc.is_alive(running.pid, running.pid_started):
        return stats  # its number may be another process's by now
    layout = cgroups.read_layout()
    pids = cgroups.pids(layout, running.cgroup)
    try:
        counted = cgroup_stats.read_stats(layout, running.cgroup)
    except (CloisonError, OSError):
        return stats  # it ended
    memory, raw = counted["memory"]["usage"], counted["memory"]["raw"]
    droppable = raw.get("total_inactive_file", raw.get("inactive_file", 0))
    read, written = _disk(layout, running.cgroup, counted, pids)
    received, sent = processes.network_bytes(running.pid) if record.spec.network not in ("host", "none") else (0, 0)
    return stats.replace(
        read_ns=time.monotonic_ns(), cpu_ns=_cpu_ns(layout, running.cgroup, counted, pids),
        memory_bytes=memory["usage"] - droppable if droppable < memory["usage"] else memory["usage"],
        memory_limit_bytes=min(memory["limit"], processes.memory_total_bytes()),
        received_bytes=received, sent_bytes=sent, read_bytes=read, written_bytes=written,
        pids=counted["pids"].get("current", len(pids)),
    )  # fmt: skip


def _cpu_ns(layout: Layout, path: str, counted: Counted, pids: Sequence[int]) -> int:
    """Processor time of all that has ever run in the group.

    A version 2 group counts it without a controller, so on hybrid machines, too. Without any group that counts, it is
    the time of the processes that live and of those they have waited for.
    """
    if layout.unified and layout.version_of("cpuacct") == 1:
        from cloison.linux.cgroup_processes import read_field

        return read_field(f"{layout.unified}/{path}/cpu.stat", "usage_usec") * 1000
    total = counted["cpu"]["usage"]["total"]
    return int(total) or sum(info.cpu_ticks + info.waited_ticks for info in _look(pids)) * (_NS // TICKS_PER_S)


def _disk(
    layout: Layout, path: str, counted: dict[str, dict[str, list[dict[str, object]]]], pids: Sequence[int]
) -> tuple[int, int]:
    """Bytes read and written; where no group counts them, what the processes say."""
    version = layout.version_of("blkio")
    if version == 2 or (version == 1 and os.path.isdir(f"{layout.legacy['blkio']}/{path}")):
        entries: list[dict[str, Any]] = counted["blkio"]["ioServiceBytesRecursive"]
        sums = {op: sum(e["value"] for e in entries if e["op"] == op) for op in ("Read", "Write")}
        return sums["Read"], sums["Write"]
    both = [processes.disk_bytes(pid) for pid in pids]
    return sum(read for read, _ in both), sum(written for _, written in both)
