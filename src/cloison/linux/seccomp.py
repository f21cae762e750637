"""Our own compiler from a seccomp profile to classic BPF: what a container may ask of the kernel, as a decision tree.

Every program looks at the machine first and at the number's x32 bit second, then finds the number in a balanced tree of
ranges, then compares arguments. Besides the native machine, i386 and x32 have programs of their own where a profile
grants them. Sources: seccomp(2), kernel Documentation/userspace-api/seccomp_filter.rst,
linux/seccomp.h, linux/filter.h, linux/audit.h.
"""

from __future__ import annotations

import struct

from cloison.errors import InvalidArgument, Unsupported
from cloison.linux.syscalls import ARCHITECTURES, X32_BIT, numbers
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant
    Decision = tuple[tuple[tuple[tuple["Condition", ...], int], ...], int]  # (conditions, action) in order, otherwise

# What a filter answers (linux/seccomp.h): the upper half is the action, the lower its data.
KILL_PROCESS = 0x80000000
KILL_THREAD = 0x00000000
TRAP = 0x00030000
ERRNO = 0x00050000
TRACE = 0x7FF00000
NOTIFY = 0x7FC00000
LOG = 0x7FFC0000
ALLOW = 0x7FFF0000
ENOSYS = ERRNO | 38

MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_FULL = 0xFFFFFFFFFFFFFFFF
_LOW = 0xFFFFFFFF
_ANY_KERNEL = (1 << 16, 0)

# struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6], little endian on both machines
_NUMBER = 0
_ARCHITECTURE = 4
_ARGUMENTS = 16
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_I386 = 0x40000003
_FOREIGN = {"x86_64": ("i386", "x32")}  # what a machine can run besides its own
_ALL_NARROW = "012345"

_LOAD = 0x20  # A = data[k]
_AND = 0x54
_JUMP = 0x05
_JUMP_EQUAL = 0x15
_JUMP_GREATER = 0x25
_JUMP_GREATER_EQUAL = 0x35
_JUMP_BITS = 0x45
_RETURN = 0x06
_INSTRUCTION = struct.Struct("<HBBI")
_MATCH, _FAIL = -1, -2  # targets that are not yet distances
_OPERATORS = ("==", "!=", "<", "<=", ">", ">=")

# Arguments that the kernel takes as int or unsigned int. The register's upper half is the caller's to choose, so that a
# comparison of 64 bits is defeated by a dirty one: socket(AF_VSOCK | 1 << 32, …) still makes a vsock.
_INT_ARGUMENTS = {
    name: digits
    for name, _, digits in (
        entry.partition(":")
        for entry in (
            "accept4:03 arch_prctl:0 bpf:0 clone:0 close_range:012 epoll_create1:0 eventfd2:01 faccessat2:023 "
            "fanotify_init:01 fcntl:01 fsmount:012 fsopen:1 futex:1 getpriority:01 getsockopt:012 inotify_init1:0 "
            "io_uring_register:01 io_uring_setup:0 ioctl:01 ioprio_set:01 keyctl:0 kill:01 landlock_create_ruleset:2 "
            "lseek:02 madvise:2 memfd_create:1 memfd_secret:0 mlockall:0 move_mount:024 open:1 open_tree:02 openat:02 "
            "personality:0 pidfd_getfd:012 pidfd_open:01 pidfd_send_signal:013 pipe2:1 prctl:0 prlimit64:01 "
            "quotactl:0 reboot:012 recvfrom:03 sched_setscheduler:01 seccomp:01 sendto:03 setns:01 setpriority:012 "
            "setsockopt:012 shutdown:01 socket:012 socketpair:012 splice:025 syslog:02 tgkill:012 tkill:01 "
            "timerfd_create:01 userfaultfd:0 vmsplice:03 waitid:03"
        ).split()
    )
}


class Condition(Record):
    """A comparison of one argument, unsigned: ``argument & mask`` with ``value``."""

    argument: int  # 0..5
    operator: str  # == != < <= > >=
    value: int
    mask: int = _FULL


class Rule(Record):
    """What becomes of some system calls, when all conditions hold and the container is such a one."""

    names: tuple[str, ...]  # those that the machine does not have are passed over
    action: int
    conditions: tuple[Condition, ...] = ()
    requires: int = 0  # mask of capabilities: the rule is there when the container has all of them …
    unless: int = 0  # … and none of these
    min_kernel: tuple[int, int] = (0, 0)
    below_kernel: tuple[int, int] = _ANY_KERNEL
    architectures: tuple[str, ...] = ARCHITECTURES


class Profile(Record):
    """A seccomp profile.

    Of the rules for one system call those with conditions are tried first, in order; then the first without any
    decides, or else ``default``. Numbers that no table has are answered ENOSYS, unless the default is to allow.
    """

    default: int
    rules: tuple[Rule, ...]
    foreign: tuple[str, ...] = ()  # i386, x32: their calls go by the same rules; else they are killed, or do not exist


def errno_action(number: int) -> int:
    """The action that makes the call fail with this errno. Raises: InvalidArgument."""
    if not 0 <= number <= 4095:  # MAX_ERRNO
        raise InvalidArgument(f"invalid errno {number}", hint="use a number from 0 to 4095")
    return ERRNO | number


def compile_profile(
    profile: Profile, *, architecture: str, capabilities: int = 0, kernel: tuple[int, int] = (1 << 15, 0)
) -> bytes:
    """The profile's program, a struct sock_filter array, for one machine (``uname -m``) and one set of capabilities.

    Pure. Raises: Unsupported for a machine without tables; InvalidArgument for a profile too large or senseless.
    """
    if architecture not in _AUDIT:
        raise Unsupported(
            "cannot compile a seccomp profile",
            why=f"{architecture} is not known",
            hint="use --security-opt seccomp=unconfined",
        )
    rules = [rule for rule in profile.rules if _applies(rule, architecture, capabilities=capabilities, kernel=kernel)]
    foreign = [name for name in _FOREIGN.get(architecture, ()) if name in profile.foreign]
    program = _program(profile.default, rules, architecture=architecture, foreign=foreign)
    if len(program) > MAX_INSTRUCTIONS:
        raise InvalidArgument(
            "the seccomp profile is too large",
            why=f"it takes {len(program)} instructions, the kernel takes {MAX_INSTRUCTIONS}",
            hint="use fewer rules with arguments",
        )
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


def _applies(rule: Rule, architecture: str, *, capabilities: int, kernel: tuple[int, int]) -> bool:
    return (
        rule.requires & ~capabilities == 0
        and rule.unless & capabilities == 0
        and rule.min_kernel <= kernel < rule.below_kernel
        and architecture in rule.architectures
    )


def _program(default: int, rules: Sequence[Rule], *, architecture: str, foreign: Sequence[str]) -> list[Instruction]:
    tables = [numbers(architecture), *([numbers("x32")] if "x32" in foreign else [])]
    native = _prologue(architecture, with_x32="x32" in foreign) + _search(default, rules, tables=tables)
    program: list[Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE)]
    if "i386" in foreign:
        shared = [*rules, *_behind_one_door(rules)]
        older = [(_LOAD, 0, 0, _NUMBER), *_search(default, shared, tables=[numbers("i386")], narrow=_ALL_NARROW)]
        program += [(_JUMP_EQUAL, 1, 0, _I386), (_JUMP, 0, 0, len(older)), *older]
    return [*program, (_JUMP_EQUAL, 1, 0, _AUDIT[architecture]), (_RETURN, 0, 0, KILL_PROCESS), *native]


def _search(
    default: int, rules: Iterable[Rule], *, tables: Sequence[Mapping[str, int]], narrow: str = ""
) -> list[Instruction]:
    ranges = _ranges(default, rules, tables=tables, narrow=narrow)
    return _tree([(start, _decide(decision)) for start, decision in ranges])


def _behind_one_door(rules: Iterable[Rule]) -> list[Rule]:
    """i386 has socket(2) and its like twice: a rule without conditions goes for the number behind the door, too.

    One with conditions cannot: its arguments lie in memory, where no filter can look.
    """
    from cloison.linux.syscalls_x86 import MULTIPLEXED

    return [
        rule.replace(names=(door,), conditions=(Condition(argument=0, operator="==", value=calls[name]),))
        for rule in rules
        if not rule.conditions
        for door, calls in MULTIPLEXED.items()
        for name in rule.names
        if name in calls
    ]


def _ranges(
    default: int, rules: Iterable[Rule], *, tables: Sequence[Mapping[str, int]], narrow: str
) -> list[tuple[int, Decision]]:
    """Ascending (first number, decision); neighbours that decide alike are one range."""
    tried: dict[int, list[tuple[tuple[Condition, ...], int]]] = {}
    settled: dict[int, int] = {}
    for rule in rules:
        for name in rule.names:
            found = [table[name] for table in tables if name in table]
            conditions = _simplify(name, rule.conditions, narrow=narrow) if found and rule.conditions else ()
            if conditions is None:
                continue
            for number in found:
                if conditions:
                    tried.setdefault(number, []).append((conditions, rule.action))
                else:
                    settled.setdefault(number, rule.action)
    # glibc falls back when a call is not implemented; it gives up when one is forbidden.
    unknown: Decision = ((), default if default in (ALLOW, LOG) else ENOSYS)
    ranges: list[tuple[int, Decision]] = []
    expected = 0
    for number in sorted(number for table in tables for number in table.values()):
        if number != expected:
            _extend(ranges, expected, decision=unknown)
        _extend(ranges, number, decision=(tuple(tried.get(number, ())), settled.get(number, default)))
        expected = number + 1
    _extend(ranges, expected, decision=unknown)
    return ranges


def _extend(ranges: list[tuple[int, Decision]], start: int, *, decision: Decision) -> None:
    if not ranges or ranges[-1][1] != decision:
        ranges.append((start, decision))


def _simplify(name: str, conditions: tuple[Condition, ...], *, narrow: str) -> tuple[Condition, ...] | None:
    """The conditions with int arguments cut to 32 bits; without those that always hold; None when one never does."""
    narrow = narrow or _INT_ARGUMENTS.get(name, "")
    kept: list[Condition] = []
    for condition in conditions:
        if condition.operator not in _OPERATORS or not 0 <= condition.argument <= 5:
            raise InvalidArgument(f"invalid condition on {name}: {condition!r}")
        mask, value = condition.mask & _FULL, condition.value & _FULL
        if str(condition.argument) in narrow:
            mask, value = mask & _LOW, value & _LOW
        if mask != condition.mask or value != condition.value:
            condition = condition.replace(mask=mask, value=value)
        if value & ~mask and condition.operator == "==":
            return None
        if not (value & ~mask and condition.operator == "!="):
            kept.append(condition)
    return tuple(kept)


def _prologue(architecture: str, *, with_x32: bool) -> list[Instruction]:
    """Native calls alone: the same number means something else to another ABI, and arguments lie elsewhere.

    A foreign machine's call kills, visibly ("Bad system call"): with an error its exit(2) would fail too, and the
    program would run on into whatever follows. An x32 call is answered as kernels without x32 answer it.
    """
    program = [(_LOAD, 0, 0, _NUMBER)]
    if architecture == "x86_64" and not with_x32:
        program += [(_JUMP_BITS, 0, 1, X32_BIT), (_RETURN, 0, 0, ENOSYS)]
    return program


def _tree(ranges: list[tuple[int, list[Instruction]]]) -> list[Instruction]:
    """Binary search over ranges, the number in A; every path ends in a return."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    below, above = _tree(ranges[:middle]), _tree(ranges[middle:])
    pivot = ranges[middle][0]
    if len(below) < 256:
        return [(_JUMP_GREATER_EQUAL, len(below), 0, pivot), *below, *above]
    # A conditional jump reaches 255 instructions, an unconditional one everything.
    return [(_JUMP_GREATER_EQUAL, 0, 1, pivot), (_JUMP, 0, 0, len(below)), *below, *above]


def _decide(decision: Decision) -> list[Instruction]:
    """Try each rule's conditions, fall through to the next rule, end with what is left."""
    tried, otherwise = decision
    program: list[Instruction] = []
    for conditions, action in tried:
        block: list[Instruction] = [(_RETURN, 0, 0, action)]
        for condition in reversed(conditions):
            block = _resolve(_compare(condition), behind=len(block)) + block
        program += block
    return [*program, (_RETURN, 0, 0, otherwise)]


def _resolve(code: list[Instruction], *, behind: int) -> list[Instruction]:
    """Distances for MATCH (right behind the comparison) and FAIL (``behind`` instructions further)."""

    def distance(target: int, position: int) -> int:
        left = len(code) - position - 1
        return target if target >= 0 else left if target == _MATCH else left + behind

    return [
        (operation, distance(true, at), distance(false, at), constant)
        for at, (operation, true, false, constant) in enumerate(code)
    ]


def _compare(condition: Condition) -> list[Instruction]:
    low_at = _ARGUMENTS + 8 * condition.argument
    match condition.operator:
        case "==" | "!=":
            code = _equal(condition, low_at)
        case ">" | "<=":
            code = _order(condition, low_at, operation=_JUMP_GREATER)
        case _:
            code = _order(condition, low_at, operation=_JUMP_GREATER_EQUAL)
    if condition.operator in ("==", ">", ">="):
        return code
    swapped = {_MATCH: _FAIL, _FAIL: _MATCH}
    return [(op, swapped.get(true, true), swapped.get(false, false), k) for op, true, false, k in code]


def _equal(condition: Condition, low_at: int) -> list[Instruction]:
    code: list[Instruction] = []
    mask, value = condition.mask, condition.value
    for at, mask_half, value_half in ((low_at + 4, mask >> 32, value >> 32), (low_at, mask & _LOW, value & _LOW)):
        if mask_half:
            code += [*_load(at, mask_half), (_JUMP_EQUAL, 0, _FAIL, value_half)]
    if not code:  # a mask of nothing: 0 == 0
        return [(_JUMP_GREATER_EQUAL, _MATCH, _MATCH, 0)]
    operation, true, false, constant = code[-1]
    return [*code[:-1], (operation, _MATCH if true == 0 else true, false, constant)]


def _order(condition: Condition, low_at: int, *, operation: int) -> list[Instruction]:
    mask, value = condition.mask, condition.value
    code: list[Instruction] = []
    if mask >> 32:
        high = value >> 32
        code = [
            *_load(low_at + 4, mask >> 32),
            (_JUMP_GREATER, _MATCH, 0, high),
            (_JUMP_EQUAL, 0, _FAIL, high),
        ]
    elif value > _LOW:  # 32 bits are never that much
        return [(_JUMP_GREATER, _FAIL, _FAIL, 0)]
    return [*code, *_load(low_at, mask & _LOW), (operation, _MATCH, _FAIL, value & _LOW)]


def _load(at: int, mask: int) -> list[Instruction]:
    load = (_LOAD, 0, 0, at)
    return [load] if mask == _LOW else [load, (_AND, 0, 0, mask)]
