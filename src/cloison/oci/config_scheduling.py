"""How a process shares the machine: scheduler, I/O priority, CPUs, memory policy, personality.

From the specification's words to the kernel's numbers (runtime-spec config.md, "Linux Process"; config-linux.md,
"Memory policy", "Personality"). What the kernel would refuse for its value alone is refused here, where it has a name.
Imported only for a configuration that has such a field.
"""

from __future__ import annotations

from cloison.oci.runtime import ExecCpus, MemoryPolicy, Scheduler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloison.oci.fields import Fields

_INT = (1 << 31) - 1
_U64 = (1 << 64) - 1
# sched(7), linux/sched.h
_POLICIES = {
    "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4, "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}  # fmt: skip
_REALTIME = ("SCHED_FIFO", "SCHED_RR")
_SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01, "SCHED_FLAG_RECLAIM": 0x02, "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08, "SCHED_FLAG_KEEP_PARAMS": 0x10, "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}  # fmt: skip
# kernel/sched/deadline.c, __checkparam_dl: the clock's grain below, the sign bit above
_LEAST_RUNTIME_NS = 1024
_MOST_TIME_NS = (1 << 63) - 1
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_IO_CLASS_SHIFT = 13  # ioprio_set(2)
# set_mempolicy(2), linux/mempolicy.h
MEMORY_MODES = {
    "MPOL_DEFAULT": 0, "MPOL_PREFERRED": 1, "MPOL_BIND": 2, "MPOL_INTERLEAVE": 3, "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5, "MPOL_WEIGHTED_INTERLEAVE": 6,
}  # fmt: skip
_NODELESS = ("MPOL_DEFAULT", "MPOL_LOCAL")
MEMORY_FLAGS = {
    "MPOL_F_NUMA_BALANCING": 1 << 13, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_STATIC_NODES": 1 << 15,
}  # fmt: skip
_BALANCED = ("MPOL_BIND", "MPOL_PREFERRED_MANY")
_DOMAINS = {"LINUX": 0x0, "LINUX32": 0x8}  # personality(2)
_CPUS, _NODES = 8192, 1024  # the most that a kernel is built for


def parse_scheduler(fields: Fields) -> Scheduler:
    """``process.scheduler``. Raises: InvalidArgument."""
    policy = fields.choice("policy", tuple(_POLICIES))
    priority = fields.whole("priority", least=-_INT, most=_INT) or 0
    if policy in _REALTIME and not 1 <= priority <= 99:
        raise fields.invalid("priority", f"is {priority}, not from 1 to 99 as {policy} needs it")
    if policy not in _REALTIME and priority:
        raise fields.invalid("priority", f"is {priority}, but {policy} has none")
    times = {name: fields.whole(name, least=0, most=_U64) for name in ("runtime", "deadline", "period")}
    if policy == "SCHED_DEADLINE":
        _check_deadline(fields, times)
    elif unused := next((name for name, time in times.items() if time), ""):
        raise fields.invalid(unused, "goes with SCHED_DEADLINE alone")
    return Scheduler(
        policy=_POLICIES[policy],
        nice=fields.whole("nice", least=-20, most=19) or 0,
        priority=priority,
        flags=_bits(fields, _SCHEDULER_FLAGS),
        runtime_ns=times["runtime"] or 0,
        deadline_ns=times["deadline"] or 0,
        period_ns=times["period"] or 0,
    )


def _check_deadline(fields: Fields, times: Mapping[str, int | None]) -> None:
    """sched(7), "SCHED_DEADLINE": runtime <= deadline <= period, each within bounds; a period of 0 is the deadline.

    The kernel says EINVAL to all of it. The words are crun's, which its users know.
    """
    runtime, deadline, period = (times[name] for name in ("runtime", "deadline", "period"))
    wrong = ""
    if runtime is None or deadline is None:
        wrong = f"requires `{'runtime' if runtime is None else 'deadline'}`"
    elif runtime == 0:
        wrong = "runtime must be greater than 0"
    elif not _LEAST_RUNTIME_NS <= runtime <= _MOST_TIME_NS:
        wrong = f"runtime {runtime} must be between {_LEAST_RUNTIME_NS} and {_MOST_TIME_NS}"
    elif runtime > deadline:
        wrong = f"runtime {runtime} must be <= deadline {deadline}"
    elif deadline > _MOST_TIME_NS:
        wrong = f"deadline {deadline} must be <= {_MOST_TIME_NS}"
    elif period and not deadline <= period <= _MOST_TIME_NS:
        wrong = f"deadline {deadline} must be <= period {period}" if deadline > period else "period is too large"
    if wrong:
        raise fields.invalid("", f"cannot be used: sched_setattr: `SCHED_DEADLINE` {wrong}")


def parse_io_priority(fields: Fields) -> int:
    """``process.ioPriority`` as ioprio_set(2) takes it. Raises: InvalidArgument."""
    kind = _IO_CLASSES[fields.choice("class", tuple(_IO_CLASSES))]
    return kind << _IO_CLASS_SHIFT | (fields.whole("priority", least=0, most=7) or 0)


def parse_exec_cpus(fields: Fields) -> ExecCpus:
    """``process.execCPUAffinity``. Raises: InvalidArgument."""
    return ExecCpus(initial=_numbers(fields, "initial", bound=_CPUS), final=_numbers(fields, "final", bound=_CPUS))


def parse_memory_policy(fields: Fields) -> MemoryPolicy:
    """``linux.memoryPolicy``. Raises: InvalidArgument."""
    mode = fields.choice("mode", tuple(MEMORY_MODES))
    nodes, flags = _numbers(fields, "nodes", bound=_NODES), _bits(fields, MEMORY_FLAGS)
    if mode in _NODELESS and (nodes or flags):
        raise fields.invalid("nodes" if nodes else "flags", f"is not for {mode}")
    if mode not in _NODELESS and not nodes:
        raise fields.invalid("nodes", f"is missing: {mode} needs one at least")
    both = MEMORY_FLAGS["MPOL_F_RELATIVE_NODES"] | MEMORY_FLAGS["MPOL_F_STATIC_NODES"]
    if flags & both == both:
        raise fields.invalid("flags", "has MPOL_F_RELATIVE_NODES and MPOL_F_STATIC_NODES, which exclude each other")
    if flags & MEMORY_FLAGS["MPOL_F_NUMA_BALANCING"] and mode not in _BALANCED:
        raise fields.invalid("flags", f"has MPOL_F_NUMA_BALANCING, which goes with {' and '.join(_BALANCED)} alone")
    return MemoryPolicy(mode=MEMORY_MODES[mode] | flags, nodes=nodes)


def parse_personality(fields: Fields) -> int:
    """``linux.personality`` as personality(2) takes it. Raises: InvalidArgument."""
    if fields.texts("flags"):
        raise fields.invalid("flags", "is not empty")  # config-linux.md: "Currently no flag values are supported"
    return _DOMAINS[fields.choice("domain", tuple(_DOMAINS))]


def _bits(fields: Fields, known: Mapping[str, int]) -> int:
    bits = 0
    for word in fields.texts("flags"):
        if word not in known:
            raise fields.invalid("flags", f"has {word[:64]!r}, not one of {', '.join(known)}")
        bits |= known[word]
    return bits


def _numbers(fields: Fields, name: str, *, bound: int) -> tuple[int, ...]:
    """A list as cpusets have it: ``0-3,7``; ascending, each once."""
    text = fields.text(name, default="")
    found: set[int] = set()
    for piece in text.split(",") if text else ():
        first, dash, last = piece.strip().partition("-")
        words = (first, last if dash else first)
        ends = [int(word) for word in words if word.isascii() and word.isdigit() and len(word) < 6]
        if len(ends) < 2 or ends[0] > ends[1] or ends[1] >= bound:
            raise fields.invalid(name, f"is {text[:64]!r}, not a list of numbers below {bound} like 0-3,7")
        found.update(range(ends[0], ends[1] + 1))
    return tuple(sorted(found))
