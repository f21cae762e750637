"""The seccomp compiler against an interpreter and a naive reading of the same profile."""

from __future__ import annotations

import operator
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import classic_bpf as bpf
from cloison.errors import InvalidArgument, Unsupported
from cloison.linux import seccomp
from cloison.linux.seccomp import Condition, Profile, Rule, compile_profile, errno_action
from cloison.linux.syscalls import numbers

EPERM = errno_action(1)
FULL = (1 << 64) - 1
COMPARE = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
NAMES = ["read", "write", "rename", "getppid", "mmap", "statx", "mseal"]  # none has an int argument in the table
WORDS = st.one_of(
    st.integers(0, 3), st.integers(0, FULL), st.sampled_from([1 << 31, (1 << 32) - 1, 1 << 32, FULL, 5 << 32 | 7])
)
CONDITIONS = st.builds(
    lambda argument, op, value, mask: Condition(argument=argument, operator=op, value=value & mask, mask=mask),
    st.integers(0, 5), st.sampled_from(sorted(COMPARE)), WORDS, st.one_of(st.just(FULL), WORDS),
)  # fmt: skip
ACTIONS = st.sampled_from([seccomp.ALLOW, EPERM, seccomp.KILL_PROCESS, seccomp.LOG, errno_action(97)])
RULES = st.builds(
    lambda names, action, conditions: Rule(names=tuple(names), action=action, conditions=tuple(conditions)),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3), ACTIONS, st.lists(CONDITIONS, max_size=3),
)  # fmt: skip


def compiled(profile: Profile, *, architecture: str = "x86_64", **keys: object) -> list[tuple[int, int, int, int]]:
    return bpf.parse(compile_profile(profile, architecture=architecture, **keys))


def expected(profile: Profile, name: str, args: list[int]) -> int:
    """The profile read as its docstring says, with nothing clever."""
    mine = [rule for rule in profile.rules if name in rule.names]
    for rule in mine:
        if rule.conditions and all(COMPARE[c.operator](args[c.argument] & c.mask, c.value) for c in rule.conditions):
            return rule.action
    return next((rule.action for rule in mine if not rule.conditions), profile.default)


@settings(max_examples=150)
@given(
    rules=st.lists(RULES, max_size=5), calls=st.lists(st.lists(WORDS, min_size=6, max_size=6), min_size=1, max_size=6)
)
def test_a_compiled_profile_answers_as_the_profile_reads(rules: list[Rule], calls: list[list[int]]) -> None:
    profile = Profile(default=errno_action(38), rules=tuple(rules))
    program = compiled(profile)
    table = numbers("x86_64")
    # besides random arguments the very values that rules compare with, and their neighbours
    edges = [[(c.value + d) & FULL] * 6 for rule in rules for c in rule.conditions for d in (-1, 0, 1)]
    for name in NAMES:
        for args in calls + edges:
            assert bpf.run(program, table[name], args=args) == expected(profile, name, args), (name, args)


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_every_number_gets_its_own_answer(architecture: str) -> None:
    arch = {"x86_64": bpf.X86_64, "aarch64": bpf.AARCH64}[architecture]
    table = numbers(architecture)
    # a different errno for each call leaves the tree nothing to merge: its largest form
    rules = tuple(Rule(names=(name,), action=errno_action(at + 100)) for at, name in enumerate(table))
    program = compiled(Profile(default=seccomp.ALLOW, rules=rules), architecture=architecture)
    assert len(program) <= seccomp.MAX_INSTRUCTIONS
    answers = {number: errno_action(at + 100) for at, number in enumerate(table.values())}
    for number in range(1024):
        assert bpf.run(program, number, arch=arch) == answers.get(number, seccomp.ALLOW)


def test_the_tree_is_balanced() -> None:
    rules = tuple(Rule(names=(name,), action=errno_action(at + 100)) for at, name in enumerate(numbers("x86_64")))
    program = compiled(Profile(default=seccomp.ALLOW, rules=rules))
    steps = 0
    at = 0
    while program[at][0] != 0x06 and steps < 100:  # the longest way: always to the right
        code, true, _false, constant = program[at]
        at += 1 + (constant if code == 0x05 else true if code in (0x15, 0x35) else 1 if code == 0x45 else 0)
        steps += 1
    assert steps < 24


@pytest.mark.parametrize(
    ("architecture", "foreign"), [("x86_64", bpf.I386), ("x86_64", bpf.AARCH64), ("aarch64", bpf.ARM), ("aarch64", 0)]
)
def test_a_foreign_abi_is_killed_even_by_a_profile_that_allows_everything(architecture: str, foreign: int) -> None:
    program = compiled(Profile(default=seccomp.ALLOW, rules=()), architecture=architecture)
    assert {bpf.run(program, number, arch=foreign) for number in range(600)} == {seccomp.KILL_PROCESS}


def test_x32_numbers_do_not_exist_even_in_a_profile_that_allows_everything() -> None:
    program = compiled(Profile(default=seccomp.ALLOW, rules=()))
    assert bpf.run(program, 39) == seccomp.ALLOW
    assert {bpf.run(program, number | 1 << 30) for number in range(600)} == {seccomp.ENOSYS}
    assert bpf.run(program, 0xFFFFFFFF) == seccomp.ENOSYS


@pytest.mark.parametrize("default", [EPERM, seccomp.KILL_PROCESS, seccomp.TRAP])
def test_unknown_numbers_do_not_exist_whatever_forbids_the_known(default: int) -> None:
    program = compiled(Profile(default=default, rules=()))
    assert bpf.run(program, 39) == default
    assert {bpf.run(program, number) for number in (337, 423, 470, 999, 1 << 29)} == {seccomp.ENOSYS}


def test_a_deny_list_lets_unknown_numbers_pass() -> None:
    program = compiled(Profile(default=seccomp.ALLOW, rules=(Rule(names=("mount",), action=EPERM),)))
    assert bpf.run(program, 165) == EPERM
    assert bpf.run(program, 470) == seccomp.ALLOW


def test_int_arguments_are_compared_in_32_bits_whatever_the_upper_half_holds() -> None:
    rule = Rule(names=("socket",), action=EPERM, conditions=(Condition(argument=0, operator="==", value=40),))
    program = compiled(Profile(default=seccomp.ALLOW, rules=(rule,)))
    for dirt in (0, 1 << 32, 1 << 63, 0xDEADBEEF << 32):
        assert bpf.run(program, 41, args=[40 | dirt]) == EPERM
        assert bpf.run(program, 41, args=[41 | dirt]) == seccomp.ALLOW


def test_long_arguments_are_compared_in_64_bits() -> None:
    rule = Rule(names=("read",), action=EPERM, conditions=(Condition(argument=2, operator="==", value=40),))
    program = compiled(Profile(default=seccomp.ALLOW, rules=(rule,)))
    assert bpf.run(program, 0, args=[0, 0, 40]) == EPERM
    assert bpf.run(program, 0, args=[0, 0, 40 | 1 << 32]) == seccomp.ALLOW


def test_a_rule_is_there_only_with_its_capabilities() -> None:
    rules = (
        Rule(names=("mount",), action=seccomp.ALLOW, requires=0b11),
        Rule(names=("mount",), action=EPERM, unless=0b10),
    )
    profile = Profile(default=errno_action(38), rules=rules)
    answers = [bpf.run(compiled(profile, capabilities=mask), 165) for mask in (0, 0b01, 0b10, 0b11, 0b111)]
    assert answers == [EPERM, EPERM, errno_action(38), seccomp.ALLOW, seccomp.ALLOW]


def test_a_rule_is_there_only_on_its_kernels_and_machines() -> None:
    rules = (
        Rule(names=("ptrace",), action=seccomp.ALLOW, min_kernel=(4, 8)),
        Rule(names=("getpid",), action=seccomp.ALLOW, below_kernel=(5, 0)),
        Rule(names=("getppid",), action=seccomp.ALLOW, architectures=("aarch64",)),
    )
    profile = Profile(default=EPERM, rules=rules)
    old, new = compiled(profile, kernel=(4, 7)), compiled(profile, kernel=(6, 1))
    assert [bpf.run(old, number) for number in (101, 39, 110)] == [EPERM, seccomp.ALLOW, EPERM]
    assert [bpf.run(new, number) for number in (101, 39, 110)] == [seccomp.ALLOW, EPERM, EPERM]


def test_a_profile_beyond_the_kernels_limit_is_refused() -> None:
    rules = tuple(
        Rule(names=("read",), action=EPERM, conditions=(Condition(argument=1, operator="==", value=value << 32),))
        for value in range(1000)
    )
    with pytest.raises(InvalidArgument, match="too large"):
        compile_profile(Profile(default=seccomp.ALLOW, rules=rules), architecture="x86_64")


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(Unsupported, match="riscv64"):
        compile_profile(Profile(default=seccomp.ALLOW, rules=()), architecture="riscv64")


@pytest.mark.parametrize("number", [-1, 4096])
def test_an_errno_that_does_not_fit_is_refused(number: int) -> None:
    with pytest.raises(InvalidArgument):
        errno_action(number)


def test_a_program_is_whole_instructions_of_eight_bytes() -> None:
    program = compile_profile(Profile(default=seccomp.ALLOW, rules=()), architecture="x86_64")
    assert struct.unpack_from("<HBBI", program) == (0x20, 0, 0, 4)


BOTH = ("i386", "x32")
ALL_BUT_TWO = (Rule(names=("getppid", "ioctl"), action=EPERM),)


def test_other_machines_that_are_granted_have_their_own_numbers() -> None:
    program = compiled(Profile(default=seccomp.ALLOW, rules=ALL_BUT_TWO, foreign=BOTH))
    x32 = 1 << 30
    forbidden = {bpf.X86_64: {110, 16, x32 | 110, x32 | 514}, bpf.I386: {64, 54}}
    for arch, numbers_of in forbidden.items():
        found = {n for n in (*range(600), *range(x32, x32 + 600)) if bpf.run(program, n, arch=arch) == EPERM}
        assert found == numbers_of
    assert bpf.run(program, 64, arch=bpf.AARCH64) == seccomp.KILL_PROCESS


@pytest.mark.parametrize("foreign", [(), ("i386",), ("x32",)])
def test_what_is_not_granted_stays_outside(foreign: tuple[str, ...]) -> None:
    program = compiled(Profile(default=seccomp.ALLOW, rules=(), foreign=foreign))
    old = seccomp.ALLOW if "i386" in foreign else seccomp.KILL_PROCESS
    x32 = seccomp.ALLOW if "x32" in foreign else seccomp.ENOSYS
    assert (bpf.run(program, 20, arch=bpf.I386), bpf.run(program, 1 << 30 | 39)) == (old, x32)


def test_the_number_behind_one_door_is_filtered_as_the_call_of_its_own() -> None:
    rules = (
        Rule(names=("socket", "shmat"), action=EPERM),
        Rule(names=("connect",), action=EPERM, conditions=(Condition(argument=2, operator="==", value=7),)),
    )
    program = compiled(Profile(default=seccomp.ALLOW, rules=rules, foreign=("i386",)))

    def ask(number: int, *args: int) -> int:
        return bpf.run(program, number, arch=bpf.I386, args=args)

    assert [ask(359), ask(102, 1), ask(102, 2), ask(117, 21), ask(117, 22)] == [
        EPERM, EPERM, seccomp.ALLOW, EPERM, seccomp.ALLOW,
    ]  # fmt: skip
    # its arguments lie in memory: no filter can look there
    assert [ask(362, 0, 0, 7), ask(362, 0, 0, 8), ask(102, 3)] == [EPERM, seccomp.ALLOW, seccomp.ALLOW]


def test_i386_arguments_have_32_bits() -> None:
    rule = Rule(names=("read",), action=EPERM, conditions=(Condition(argument=2, operator="==", value=5 << 32 | 40),))
    program = compiled(Profile(default=seccomp.ALLOW, rules=(rule,), foreign=("i386",)))
    assert bpf.run(program, 3, arch=bpf.I386, args=[0, 0, 40]) == EPERM
    assert bpf.run(program, 0, args=[0, 0, 40]) == seccomp.ALLOW


def test_aarch64_has_no_other_machine() -> None:
    plain, asked = (compiled(Profile(default=EPERM, rules=(), foreign=f), architecture="aarch64") for f in ((), BOTH))
    assert plain == asked
