"""The default filter in this machine's kernel, and beside it the same probe without a filter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloison.linux.capabilities import mask_of
from cloison.runtime.seccomp_cache import custom_filter, default_filter

PROBE = Path(__file__).parent / "seccomp_probe.py"
DEFAULT_CAPS = mask_of(
    ("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "SETGID", "SETUID", "SETFCAP", "SETPCAP", "NET_BIND_SERVICE",
     "SYS_CHROOT", "KILL")
)  # fmt: skip

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the probe speaks x86_64's numbers")


def probe(filter_path: str) -> Any:
    done = subprocess.run(
        [sys.executable, PROBE, filter_path], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def filtered(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return probe(default_filter(str(tmp_path_factory.mktemp("cache")), capabilities_mask=DEFAULT_CAPS))


@pytest.fixture(scope="module")
def free() -> Any:
    return probe("-")


def test_the_kernel_takes_the_program(filtered: Any, free: Any) -> None:
    assert filtered["status"] == ["Seccomp:\t2\n"]
    assert free["status"] == ["Seccomp:\t0\n"]


def test_threads_and_children_are_born_under_the_filter(filtered: Any) -> None:
    assert (filtered["thread"], filtered["child"], filtered["fork"]) == ([1], "hello\n", "ok")
    assert filtered["clone3"] == "ENOSYS"


def test_only_the_listed_socket_families_exist(filtered: Any, free: Any) -> None:
    made = {family for family, answer in filtered["sockets"].items() if answer == "ok"}
    plain = {"1", "2", "10", "16"}
    assert made == plain | {f"dirty {family}" for family in plain}
    refused = {answer for family, answer in filtered["sockets"].items() if family not in made}
    assert refused == {"EAFNOSUPPORT", "EPERM"}
    assert filtered["sockets"]["17"] == filtered["sockets"]["dirty 17"] == "EPERM"
    assert free["sockets"]["17"] == free["sockets"]["dirty 17"] == "ok"


def test_no_namespace_is_made_by_clone(filtered: Any, free: Any) -> None:
    assert set(filtered["clone"].values()) == {"EPERM"}
    assert set(free["clone"].values()) == {"ok"}
    assert filtered["unshare"] == "EPERM"


def test_nothing_is_typed_into_a_terminal(filtered: Any, free: Any) -> None:
    names = ("tiocsti", "dirty tiocsti", "tioclinux", "tiocgwinsz")
    assert [filtered[name] for name in names] == ["EPERM", "EPERM", "EPERM", "ENOTTY"]
    assert {free[name] for name in names} == {"ENOTTY"}  # standard input is no terminal here


def test_foreign_abis_are_shut(filtered: Any, free: Any) -> None:
    assert filtered["x32 getpid"] == "ENOSYS"
    assert os.WTERMSIG(filtered["i386"]) == signal.SIGSYS
    if not os.WIFEXITED(free["i386"]):
        pytest.skip("this kernel has no 32-bit calls: there is nothing to shut")
    assert os.waitstatus_to_exitcode(free["i386"]) == 0


def test_unknown_calls_do_not_exist_and_known_bad_ones_are_forbidden(filtered: Any, free: Any) -> None:
    assert filtered["unknown"] == "ENOSYS"
    for name in ("keyctl", "io_uring_setup", "no randomisation"):
        assert filtered[name] == "EPERM"
        assert free[name] != "EPERM"
    assert filtered["personality"] == "ok"


def test_netlink_and_socket_pairs_go_by_their_lists(filtered: Any) -> None:
    assert filtered["netlink route"] == "ok"
    assert filtered["netlink xfrm"] == "EPROTONOSUPPORT"
    assert filtered["socketpair unix"] == "ok"
    assert filtered["socketpair tipc"] == "EAFNOSUPPORT"


def test_a_custom_profile_is_enforced(tmp_path: Path) -> None:
    text = json.dumps({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{
            "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13,
            "args": [{"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}],
        }],
    })  # fmt: skip
    answers = probe(custom_filter(str(tmp_path), profile_text=text, capabilities_mask=0))
    assert answers["sockets"]["2"] == answers["sockets"]["dirty 2"] == "EACCES"
    assert answers["sockets"]["10"] == "ok"
