"""How a process shares the machine: the specification's words become the kernel's numbers, or one clear error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloison.errors import InvalidArgument
from cloison.oci.config_scheduling import (
    parse_exec_cpus,
    parse_io_priority,
    parse_memory_policy,
    parse_personality,
    parse_scheduler,
)
from cloison.oci.fields import Fields
from cloison.oci.runtime import ExecCpus, Linux, MemoryPolicy, Process, Scheduler
from cloison.runtime.facts import HostFacts
from cloison.runtime.plan import render
from cloison.runtime.process import UNCONFINED, plan_command, plan_machine


def fields(**values: Any) -> Fields:
    return Fields(values, document="config.json", where="here")


def deadline(**values: int) -> dict[str, Any]:
    return {"policy": "SCHED_DEADLINE", "runtime": 10_000, "deadline": 20_000, "period": 20_000, **values}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"policy": "SCHED_OTHER", "nice": -5}, Scheduler(policy=0, nice=-5)),
        ({"policy": "SCHED_FIFO", "priority": 99}, Scheduler(policy=1, priority=99)),
        ({"policy": "SCHED_RR", "priority": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
         Scheduler(policy=2, priority=1, flags=1)),
        ({"policy": "SCHED_BATCH"}, Scheduler(policy=3)),
        ({"policy": "SCHED_IDLE"}, Scheduler(policy=5)),
        (deadline(), Scheduler(policy=6, runtime_ns=10_000, deadline_ns=20_000, period_ns=20_000)),
        (deadline(period=0), Scheduler(policy=6, runtime_ns=10_000, deadline_ns=20_000)),
        (deadline(period=0, flags=["SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN"]),
         Scheduler(policy=6, runtime_ns=10_000, deadline_ns=20_000, flags=6)),
    ],
)  # fmt: skip
def test_a_scheduler_is_what_the_kernel_takes(given: dict[str, Any], expected: Scheduler) -> None:
    assert parse_scheduler(fields(**given)) == expected


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "here.policy is missing"),
        ({"policy": "SCHED_FAST"}, "not one of SCHED_OTHER"),
        ({"policy": "SCHED_FIFO"}, "here.priority is 0, not from 1 to 99"),
        ({"policy": "SCHED_RR", "priority": 100}, "not from 1 to 99"),
        ({"policy": "SCHED_OTHER", "priority": 3}, "SCHED_OTHER has none"),
        ({"policy": "SCHED_OTHER", "nice": 20}, "here.nice is 20, not a number from -20 to 19"),
        ({"policy": "SCHED_BATCH", "runtime": 5}, "here.runtime goes with SCHED_DEADLINE alone"),
        ({"policy": "SCHED_OTHER", "flags": ["X"]}, "here.flags has 'X'"),
        ({"policy": "SCHED_DEADLINE", "deadline": 5000}, "requires `runtime`"),
        ({"policy": "SCHED_DEADLINE", "runtime": 5000}, "requires `deadline`"),
        (deadline(runtime=0), "runtime must be greater than 0"),
        (deadline(runtime=1023), "must be between 1024 and"),
        (deadline(runtime=1 << 63), "must be between 1024 and"),
        (deadline(runtime=20_001), "runtime 20001 must be <= deadline 20000"),
        (deadline(deadline=20_001), "deadline 20001 must be <= period 20000"),
        (deadline(deadline=1 << 63), "must be <="),
        (deadline(period=1 << 63), "period is too large"),
    ],
)
def test_what_the_kernel_would_refuse_has_a_name_before(given: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_scheduler(fields(**given))
    assert text in str(caught.value)


def test_an_io_priority_is_class_and_level_in_one() -> None:
    assert parse_io_priority(fields(**{"class": "IOPRIO_CLASS_BE", "priority": 4})) == 2 << 13 | 4
    assert parse_io_priority(fields(**{"class": "IOPRIO_CLASS_IDLE"})) == 3 << 13
    for values in ({}, {"class": "IOPRIO_CLASS_NONE"}, {"class": "IOPRIO_CLASS_RT", "priority": 8}):
        with pytest.raises(InvalidArgument):
            parse_io_priority(fields(**values))


@pytest.mark.parametrize(
    ("text", "expected"), [("", ()), ("0", (0,)), ("0-3,7", (0, 1, 2, 3, 7)), ("3,1-2,2", (1, 2, 3)), ("8191", (8191,))]
)
def test_cpus_are_a_list_with_ranges(text: str, expected: tuple[int, ...]) -> None:
    assert parse_exec_cpus(fields(initial=text, final=text)) == ExecCpus(initial=expected, final=expected)


@pytest.mark.parametrize(
    "text", ["x", "1-", "-1", "3-1", "8192", "1,,2", ",", "0x1", "1 2", "99999999999999999999", "²"]
)
def test_what_is_no_list_of_cpus_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="not a list of numbers below 8192"):
        parse_exec_cpus(fields(final=text))


@given(st.sets(st.integers(0, 8191), min_size=1, max_size=50))
def test_every_list_of_cpus_comes_back_as_it_was(numbers: set[int]) -> None:
    assert parse_exec_cpus(fields(final=",".join(map(str, numbers)))).final == tuple(sorted(numbers))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"mode": "MPOL_DEFAULT"}, MemoryPolicy(mode=0)),
        ({"mode": "MPOL_LOCAL"}, MemoryPolicy(mode=4)),
        ({"mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_STATIC_NODES"]},
         MemoryPolicy(mode=2 | 1 << 13 | 1 << 15, nodes=(0, 1))),
        ({"mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "5"}, MemoryPolicy(mode=6, nodes=(5,))),
    ],
)  # fmt: skip
def test_a_memory_policy_is_what_the_kernel_takes(given: dict[str, Any], expected: MemoryPolicy) -> None:
    assert parse_memory_policy(fields(**given)) == expected


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "here.mode is missing"),
        ({"mode": "MPOL_LOCAL", "nodes": "0"}, "here.nodes is not for MPOL_LOCAL"),
        ({"mode": "MPOL_DEFAULT", "flags": ["MPOL_F_STATIC_NODES"]}, "here.flags is not for MPOL_DEFAULT"),
        ({"mode": "MPOL_BIND"}, "needs one at least"),
        ({"mode": "MPOL_BIND", "nodes": "1024"}, "not a list"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}, "exclude"),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]}, "goes with MPOL_BIND"),
    ],
)
def test_a_senseless_memory_policy_is_named(given: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_memory_policy(fields(**given))
    assert text in str(caught.value)


def test_a_personality_is_a_domain_and_nothing_else() -> None:
    assert (parse_personality(fields(domain="LINUX")), parse_personality(fields(domain="LINUX32"))) == (0, 8)
    for values in ({}, {"domain": "BSD"}, {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}):
        with pytest.raises(InvalidArgument):
            parse_personality(fields(**values))


def test_shares_are_taken_while_the_rights_to_them_are_there() -> None:
    process = Process(args=("sh",), io_priority=3 << 13, scheduler=Scheduler(policy=1, priority=5, flags=1))
    lines = render(plan_command(process, facts=HostFacts(), seccomp=UNCONFINED)).splitlines()
    assert lines[:2] == ["io-priority 24576", "scheduler 1 0 5 1 0 0 0"]
    assert lines.index("user 0 0") > 1
    linux = Linux(personality=8, memory_policy=MemoryPolicy(mode=2, nodes=(0, 3)))
    assert render(plan_machine(linux)) == "personality 8\nmemory-policy 2 0 3\n"
    assert not plan_machine(Linux())
