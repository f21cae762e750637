"""What the launcher does after the start, as operations: streams, log, sockets, exit file, clean-up."""

from __future__ import annotations

from cloison.model.record import Record
from cloison.runtime.plan import Op, op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.linux.cgroups import Placement
    from cloison.model.container import Stdio


class MonitorPlan(Record):
    """Where a monitor keeps its things. Descriptors are this process's; -1 and "" are none."""

    listen: int = -1  # a listening SEQPACKET socket (`cloison.runtime.session.listen`)
    keep: tuple[int, ...] = ()  # held open as long as the monitor lives: its lock
    log: str = ""
    log_max_bytes: int = 0  # 0 is no bound
    log_max_files: int = 1
    exit_file: str = ""
    reap: tuple[str, ...] = ()  # executed at the end when nobody waits for it
    await_start: str = ""  # "": start at once; "client": our `Session.start`; "anyone": any client's
    start_on: int = -1  # a listening socket on which the command itself waits for its start, without a monitor
    start_report: int = -1  # a file (`cloison.runtime.session.make_report`) that then tells what became of it
    sibling: bool = False  # the command is our own child, not the launcher's: with ``absent``
    absent: bool = False  # no monitor: the launcher ends once the command runs, or waits on ``start_on``
    pause_for_hooks: bool = False  # wait for `Session.start` once more, with everything mounted and before the pivot


NO_MONITOR = MonitorPlan()


def plan_stdio(stdio: Stdio) -> tuple[Op, ...]:
    """How the three streams are connected, and whether the caller is left alone."""
    streams = op("stdio", stdio.stdin, stdio.stdout, stdio.stderr)
    return (op("detach"), streams) if stdio.detached else (streams,)


def plan_monitor(monitor: MonitorPlan, *, stdio: Stdio, placement: Placement) -> tuple[Op, ...]:
    """The monitor's configuration; `cloison.runtime.launch` adds client 0."""
    ops = [op("no-monitor")] if monitor.absent else []
    ops += [op("sibling")] if monitor.sibling else []
    ops += [op("keep", fd) for fd in monitor.keep]
    if monitor.listen >= 0:
        ops.append(op("listen", monitor.listen))
    if monitor.log and _has_output(stdio):
        ops.append(op("log", monitor.log, monitor.log_max_bytes, monitor.log_max_files))
    if max(stdio.relay_in, stdio.relay_out, stdio.relay_err) >= 0:
        ops.append(op("relay", stdio.relay_in, stdio.relay_out, stdio.relay_err))
    if monitor.exit_file:
        ops.append(op("exit-file", monitor.exit_file))
    ops += [op("exit-stat", key, path, field) for key, path, field in placement.stats]
    if monitor.reap:
        ops.append(op("reap", *monitor.reap))
    return tuple(ops)


def _has_output(stdio: Stdio) -> bool:
    return not {"pipe", "pty"}.isdisjoint((stdio.stdout, stdio.stderr))
