"""Reading Docker's and OCI's seccomp profiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import classic_bpf as bpf
from cloison.errors import InvalidArgument, Unsupported
from cloison.linux import seccomp
from cloison.linux.capabilities import mask_of
from cloison.linux.seccomp import compile_profile, errno_action
from cloison.linux.seccomp_flags import filter_flags
from cloison.linux.seccomp_json import parse_docker_profile
from cloison.linux.syscalls import numbers

EPERM = errno_action(1)
TABLE = numbers("x86_64")
PODMAN = Path("/usr/share/containers/seccomp.json")


def filter_of(*entries: dict[str, Any], default: str = "SCMP_ACT_ALLOW", caps: int = 0, **more: Any) -> Any:
    text = json.dumps({"defaultAction": default, "syscalls": list(entries), **more})
    profile = parse_docker_profile(text)
    return bpf.parse(compile_profile(profile, architecture="x86_64", capabilities=caps, kernel=(6, 1)))


@pytest.mark.parametrize(
    ("action", "extra", "answer"),
    [
        ("SCMP_ACT_ERRNO", {}, EPERM),
        ("SCMP_ACT_ERRNO", {"errnoRet": 38}, errno_action(38)),
        ("SCMP_ACT_KILL", {}, seccomp.KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", {}, seccomp.KILL_PROCESS),
        ("SCMP_ACT_TRAP", {}, seccomp.TRAP),
        ("SCMP_ACT_LOG", {}, seccomp.LOG),
        ("SCMP_ACT_TRACE", {"errnoRet": 7}, seccomp.TRACE | 7),
    ],
)
def test_each_action_becomes_the_kernels(action: str, extra: dict[str, int], answer: int) -> None:
    program = filter_of({"names": ["mkdir"], "action": action, **extra})
    assert bpf.run(program, TABLE["mkdir"]) == answer
    assert bpf.run(program, TABLE["rmdir"]) == seccomp.ALLOW


def test_the_default_errno_is_that_of_the_default_alone() -> None:
    entry = {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}
    program = filter_of(entry, default="SCMP_ACT_ERRNO", defaultErrnoRet=13)
    assert bpf.run(program, TABLE["rmdir"]) == errno_action(13)
    assert bpf.run(program, TABLE["mkdir"]) == EPERM


@pytest.mark.parametrize(
    ("op", "values", "hits", "misses"),
    [
        ("SCMP_CMP_EQ", {"value": 5}, [5], [4, 6, 5 | 1 << 32]),
        ("SCMP_CMP_NE", {"value": 5}, [4, 5 | 1 << 32], [5]),
        ("SCMP_CMP_LT", {"value": 5}, [0, 4], [5, 1 << 32]),
        ("SCMP_CMP_LE", {"value": 5}, [4, 5], [6, 1 << 40]),
        ("SCMP_CMP_GT", {"value": 5}, [6, 1 << 32], [5, 0]),
        ("SCMP_CMP_GE", {"value": 5}, [5, 1 << 32], [4]),
        ("SCMP_CMP_MASKED_EQ", {"value": 0xF0, "valueTwo": 0x20}, [0x2F, 0x20 | 1 << 40], [0x3F, 0]),
    ],
)
def test_each_comparison_means_what_libseccomp_means(
    op: str, values: dict[str, int], hits: list[int], misses: list[int]
) -> None:
    entry = {"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 2, "op": op, **values}]}
    program = filter_of(entry)
    assert {bpf.run(program, 0, args=[0, 0, value]) for value in hits} == {EPERM}
    assert {bpf.run(program, 0, args=[0, 0, value]) for value in misses} == {seccomp.ALLOW}


def test_conditions_on_two_arguments_must_both_hold() -> None:
    args = [{"index": i, "value": 1, "op": "SCMP_CMP_EQ"} for i in (0, 1)]
    program = filter_of({"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": args})
    assert [bpf.run(program, 0, args=pair) for pair in ([1, 1], [1, 0], [0, 1])] == [
        EPERM,
        seccomp.ALLOW,
        seccomp.ALLOW,
    ]


def test_conditions_on_one_argument_are_alternatives() -> None:
    args = [{"index": 0, "value": v, "op": "SCMP_CMP_EQ"} for v in (3, 4)]
    program = filter_of({"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": args})
    assert [bpf.run(program, 0, args=[v]) for v in (3, 4, 5)] == [EPERM, EPERM, seccomp.ALLOW]


def test_capabilities_kernels_and_machines_select_rules() -> None:
    entries = [
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["umount2"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["kcmp"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.2"}},
        {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
        {"names": ["getpid"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
    ]
    calls = ("mount", "umount2", "ptrace", "kcmp", "arch_prctl", "getpid")
    for caps, allowed in (
        (0, {"umount2", "ptrace", "arch_prctl"}),
        (mask_of(("SYS_ADMIN",)), {"mount", "ptrace", "arch_prctl"}),
    ):
        program = filter_of(*entries, default="SCMP_ACT_ERRNO", caps=caps)
        assert {name for name in calls if bpf.run(program, TABLE[name]) == seccomp.ALLOW} == allowed


def test_names_of_other_machines_are_passed_over() -> None:
    program = filter_of({"names": ["arm_fadvise64_64", "mkdir", "bdflush"], "action": "SCMP_ACT_ERRNO"})
    assert bpf.run(program, TABLE["mkdir"]) == EPERM


def test_a_section_of_an_oci_bundle_is_read_too() -> None:
    section = {
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"], "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"}],
    }  # fmt: skip
    profile = parse_docker_profile(json.dumps(section))
    assert filter_flags(section) == 2
    assert profile.foreign == ()
    program = bpf.parse(compile_profile(profile, architecture="x86_64"))
    assert [bpf.run(program, number) for number in (0, 1, 2)] == [seccomp.ALLOW, seccomp.ALLOW, errno_action(38)]


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", '{"defaultAction": "SCMP_ACT_SING"}', '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": 7}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ERRNO"}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"]}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", '
        '"errnoRet": 9999}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", '
        '"args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", '
        '"includes": {"caps": ["CAP_NONE"]}}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["x86"]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL", '
        '"errnoRet": 5}]}',
    ],
)  # fmt: skip
def test_a_senseless_profile_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_docker_profile(text)


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        ({}, 0),
        ({"flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}, 7),
        ({"listenerPath": "/a"}, 0),  # "If the SCMP_ACT_NOTIFY action is not used this value is ignored"
        ({"listenerPath": "/a", "defaultAction": "SCMP_ACT_NOTIFY"}, 8),
        ({"listenerPath": "/a", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
          "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}, 0x28),
    ],
)  # fmt: skip
def test_flags_are_the_kernels_and_an_agent_has_a_listener(fields: dict[str, Any], flags: int) -> None:
    assert filter_flags({"defaultAction": "SCMP_ACT_ALLOW", **fields}) == flags


@pytest.mark.parametrize(
    "fields",
    [
        {"flags": ["SECCOMP_FILTER_FLAG_ODD"]}, {"flags": "LOG"}, {"flags": [3]},
        {"flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}, {"listenerMetadata": "x"},
        {"defaultAction": "SCMP_ACT_NOTIFY"}, {"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": 5},
    ],
)  # fmt: skip
def test_flags_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        filter_flags({"defaultAction": "SCMP_ACT_ALLOW", **fields})


def test_architectures_that_have_tables_are_granted() -> None:
    names = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_X86"]
    profile = parse_docker_profile(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "architectures": names}))
    assert profile.foreign == ("i386", "x32")


def test_a_profile_that_needs_an_agent_is_refused() -> None:
    with pytest.raises(Unsupported, match="NOTIFY"):
        parse_docker_profile('{"defaultAction": "SCMP_ACT_NOTIFY"}')


@pytest.mark.skipif(not PODMAN.exists(), reason="needs the profile of Debian's golang-github-containers-common")
def test_a_published_profile_keeps_its_meaning() -> None:
    profile = parse_docker_profile(PODMAN.read_text())
    plain = bpf.parse(compile_profile(profile, architecture="x86_64", kernel=(6, 1)))
    admin = bpf.parse(
        compile_profile(profile, architecture="x86_64", capabilities=mask_of(("SYS_ADMIN",)), kernel=(6, 1))
    )
    assert [bpf.run(plain, TABLE[name]) for name in ("read", "swapon", "mseal")] == [
        seccomp.ALLOW, EPERM, seccomp.ENOSYS,
    ]  # fmt: skip
    assert bpf.run(plain, TABLE["bpf"]) == EPERM
    assert bpf.run(admin, TABLE["bpf"]) == seccomp.ALLOW
