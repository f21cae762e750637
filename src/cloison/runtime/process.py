"""From a prepared world to the command: limits, identity, rights, filter, execve. The same for ``run`` and ``exec``.

Order (docs/launch-plan.md): what needs privileges comes before they are dropped; the filter comes as late as it can.
"""

from __future__ import annotations

from cloison.errors import Denied, InvalidArgument
from cloison.linux.capabilities import CAPABILITIES, mask_of
from cloison.model.record import Record
from cloison.runtime.monitor import NO_MONITOR, MonitorPlan
from cloison.runtime.plan import Op, op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloison.oci.runtime import Capabilities, Linux, Process, Rlimit, User
    from cloison.runtime.facts import HostFacts

# asm-generic/resource.h: the numbers of x86, ARM, RISC-V, POWER and s390.
_RLIMITS = (
    "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"
).split()
_RLIMIT_NUMBERS = {f"RLIMIT_{name}": number for number, name in enumerate(_RLIMITS)}
_KILL = 9


class Filter(Record):
    """A compiled seccomp filter and its flags (`cloison.linux.seccomp_flags`); no program is no filter."""

    program: bytes = b""  # struct sock_filter array
    flags: int = 0


UNCONFINED = Filter()


def plan_command(
    process: Process,
    *,
    facts: HostFacts,
    seccomp: Filter,
    monitor: MonitorPlan = NO_MONITOR,
    init: bool = False,
    preserve: Sequence[int] = (),
    file: str = "",
) -> tuple[Op, ...]:
    """Everything from the limits to ``exec`` of ``file``, or of the first argument.

    Raises: InvalidArgument, Denied (a capability we do not have ourselves).
    """
    if not process.args or not process.args[0]:
        raise InvalidArgument("no command specified")
    filtered = (op("seccomp", seccomp.program, seccomp.flags),) if seccomp.program else ()
    early, late = ((), filtered) if is_filtered_last(process) else (filtered, ())
    return (
        *plan_rlimits(process.rlimits, facts=facts),
        *_plan_scheduling(process),
        op("umask", f"{process.user.umask:o}"),
        # While we are still who may, and before a filter that may know nothing of write(2)
        *(op("exec-label", file, value) for file, value in process.exec_labels),
        op("bounding", f"{_granted(process.capabilities.bounding, facts):x}"),
        *early,
        *(op("preserve-fd", fd, fd) for fd in preserve),
        _user(process.user),
        _capabilities(process.capabilities, facts),
        *((op("no-new-privs"),) if process.no_new_privileges else ()),
        op("cwd", process.cwd),
        # The monitor's death is the container's: nobody is left to see its end. After the identity, a change clears it.
        *(() if monitor.absent else (op("parent-death-signal", _KILL),)),
        *_wait_for_start(process, monitor),
        *late,
        *((op("init"),) if init else ()),
        *((op("env", *process.env),) if monitor.start_on < 0 else ()),
        op("exec", file or process.args[0], *process.args),
    )


def is_filtered_last(process: Process) -> bool:
    """Whether the filter is loaded right before the command is executed.

    Without no_new_privs that needs CAP_SYS_ADMIN (seccomp(2)): if the command will not have it, the filter comes while
    we do, and meets our own calls.
    """
    return process.no_new_privileges or "CAP_SYS_ADMIN" in process.capabilities.effective


def _wait_for_start(process: Process, monitor: MonitorPlan) -> tuple[Op, ...]:
    if monitor.start_on >= 0:
        found = op("find-command", process.args[0])
        return (op("env", *process.env), found, op("await-start-on", monitor.start_on, monitor.start_report))
    return (op("await-start", monitor.await_start),) if monitor.await_start else ()


def plan_rlimits(rlimits: Iterable[Rlimit], *, facts: HostFacts) -> tuple[Op, ...]:
    """Limits as wanted, or as near below as the kernel lets us: raising a hard limit takes CAP_SYS_RESOURCE."""
    ops = []
    for limit in rlimits:
        number = _RLIMIT_NUMBERS.get(limit.type)
        if number is None:
            raise InvalidArgument(f"unknown resource limit {limit.type!r}")
        if _less(limit.hard, limit.soft):
            raise InvalidArgument(f"{limit.type}: the soft limit {limit.soft} is above the hard limit {limit.hard}")
        ceiling = -1 if facts.may_raise_limits else facts.hard_limits[number]
        ops.append(op("rlimit", number, _clamp(limit.soft, ceiling), _clamp(limit.hard, ceiling)))
    return tuple(ops)


def _less(one: int, other: int) -> bool:
    return one != -1 and (other == -1 or one < other)


def _clamp(wanted: int, ceiling: int) -> int:
    return ceiling if _less(ceiling, wanted) else wanted


def _plan_scheduling(process: Process) -> tuple[Op, ...]:
    """While the right to take more than the others' share is still there."""
    ops = []
    if process.io_priority is not None:
        ops.append(op("io-priority", process.io_priority))
    if (wanted := process.scheduler) is not None:
        times = (f"{time:x}" for time in (wanted.flags, wanted.runtime_ns, wanted.deadline_ns, wanted.period_ns))
        ops.append(op("scheduler", wanted.policy, wanted.nice, wanted.priority, *times))
    return tuple(ops)


def plan_machine(linux: Linux) -> tuple[Op, ...]:
    """What a process takes the machine for; memory nodes are those that its control group leaves, so once it is in."""
    ops = []
    if linux.personality is not None:
        ops.append(op("personality", f"{linux.personality:x}"))
    if (policy := linux.memory_policy) is not None:
        ops.append(op("memory-policy", policy.mode, *policy.nodes))
    return tuple(ops)


def plan_oom_score(process: Process, *, facts: HostFacts) -> tuple[Op, ...]:
    """Going below the value we have takes CAP_SYS_RESOURCE; without it the container stays at ours (proc(5))."""
    if process.oom_score_adj is None:
        return ()
    floor = -1000 if facts.may_raise_limits else facts.oom_score_adj
    return (op("oom-score-adj", max(process.oom_score_adj, floor)),)


def _user(user: User) -> Op:
    return op("user", user.uid, user.gid, *user.additional_gids)


def _capabilities(capabilities: Capabilities, facts: HostFacts) -> Op:
    sets = (capabilities.effective, capabilities.permitted, capabilities.inheritable, capabilities.ambient)
    return op("capabilities", *(f"{_granted(names, facts):x}" for names in sets))


def _granted(names: Iterable[str], facts: HostFacts) -> int:
    mask = mask_of(names)
    missing = mask & ~facts.permitted
    if missing:
        name = CAPABILITIES[(missing & -missing).bit_length() - 1]
        raise Denied(
            f"cannot grant {name} to the container",
            why="this process does not have it itself, so the kernel refuses",
            hint="run cloison with that capability, or leave it out of --cap-add",
        )
    return mask
