"""The OCI runtime door: system call filters, flags, other machines' calls, and an agent that answers from outside."""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oci_bundle import Door

# linux/seccomp.h
NOTIF_RECV, NOTIF_SEND = 0xC0502100, 0xC0182101
NOTIF = struct.Struct("<QIIiIQ6Q")
PROBE = """
static long call(long n, int is_old)
{
	long r;

	if (is_old)
		__asm__ volatile("int $0x80" : "=a"(r) : "a"(n) : "memory", "r8", "r9", "r10", "r11");
	else
		__asm__ volatile("syscall" : "=a"(r) : "a"(n) : "memory", "rcx", "r11");
	return r;
}

void _start(void)
{
	long r = CALL;

	__asm__ volatile("syscall" : : "a"(60), "D"(r < 0 ? -(int)r : 0));
}
"""
x86_64_alone = pytest.mark.skipif(os.uname().machine != "x86_64", reason="i386 and x32 are x86_64's")


class Agent:
    """Takes one filter, answers its first calls with an errno, and lets the rest be carried out."""

    def __init__(self, path: Path, *, errno: int) -> None:
        self.state: dict[str, Any] = {}
        self.numbers: list[int] = []
        self._errno = errno
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(4)
        self._listener.settimeout(20)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    text, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(16))
                    rest = connection.recv(1)
                assert rest == b"", "one state a connection, then it is closed"
                (fd,) = array.array("i", ancillary[0][2])
                self.state = json.loads(text)
                threading.Thread(target=self._answer, args=(fd,), daemon=True).start()
        except OSError:
            pass  # closed: the test is over

    def _answer(self, fd: int) -> None:
        buffer = bytearray(NOTIF.size)
        try:
            fcntl.ioctl(fd, NOTIF_RECV, buffer)
        except OSError:
            return  # whoever was filtered has ended
        identity, _pid, _flags, number, *_ = NOTIF.unpack(buffer)
        self.numbers.append(number)
        fcntl.ioctl(fd, NOTIF_SEND, struct.pack("<QqiI", identity, 0, -self._errno, 0))
        os.close(fd)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.fixture
def agent(door: Door) -> Iterator[Agent]:
    found = Agent(door.home / "agent", errno=77)
    try:
        yield found
    finally:
        found.close()


def ask_about(door: Door, *names: str) -> None:
    door.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(door.home / "agent"),
        "listenerMetadata": "words of the bundle",
        "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"],
        "syscalls": [{"names": list(names), "action": "SCMP_ACT_NOTIFY"}],
    }


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_an_agent_answers_calls_of_the_container(door: Door, agent: Agent, no_new_privileges: bool) -> None:
    """With no_new_privs the filter comes last, else while there is the right to load one: it has its agent, too."""
    ask_about(door, "mkdir", "mkdirat")
    door.write("mkdir", "/tmp/x", noNewPrivileges=no_new_privileges)
    done = door("run", "t-agent")
    assert done.returncode == 1
    assert "mkdir" in done.stderr
    assert len(agent.numbers) == 1
    state = agent.state
    assert (state["fds"], state["metadata"], state["ociVersion"]) == (["seccompFd"], "words of the bundle", "1.2.0")
    assert state["state"]["id"] == "t-agent"
    assert state["state"]["status"] == ("created" if no_new_privileges else "creating")
    assert state["pid"] == state["state"]["pid"] > 1


def test_even_the_calls_that_hand_the_filter_over_may_be_asked_about(door: Door, agent: Agent) -> None:
    ask_about(door, "sendmsg", "sendto", "execve")
    door.write("true")
    assert door("run", "t-own").returncode != 0
    assert agent.numbers == [59 if os.uname().machine == "x86_64" else 221]


def test_an_exec_has_a_listener_of_its_own(door: Door, agent: Agent) -> None:
    ask_about(door, "mkdir", "mkdirat")
    first = door.start("t-second")
    assert door("exec", "t-second", "mkdir", "/tmp/y").returncode == 1
    assert agent.state["state"] | {"annotations": {}} == {
        "ociVersion": "1.2.0", "id": "t-second", "status": "running", "bundle": str(door.bundle), "annotations": {},
        "pid": first,
    }  # fmt: skip
    assert agent.state["pid"] != first


def test_an_absent_agent_is_an_error_and_leaves_what_was(door: Door) -> None:
    ask_about(door, "mkdir")
    door.write("true", noNewPrivileges=False)
    assert "cannot reach the seccomp agent" in door.fails("create", "t-early")
    assert not door.left()
    door.write("true", noNewPrivileges=True)
    door.ok("create", "t-late")
    assert "cannot reach the seccomp agent" in door.fails("start", "t-late")
    assert door.state("t-late")["status"] == "created"


@x86_64_alone
@pytest.mark.parametrize(
    ("machine", "call", "granted", "refused"),
    [("SCMP_ARCH_X86", "call(64, 1)", 1, 128 + 31), ("SCMP_ARCH_X32", "call(0x40000000 | 110, 0)", 1, 38)],
)
def test_other_machines_calls_go_by_the_rules_where_they_are_granted(
    door: Door, machine: str, call: str, granted: int, refused: int
) -> None:
    program = door.bundle / "rootfs" / "probe"
    source = PROBE.replace("CALL", call)
    build = ["cc", "-xc", "-", "-O1", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie", "-o", program]
    subprocess.run(build, input=source, text=True, check=True)
    rule = {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    seccomp: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    door.config["linux"]["seccomp"] = seccomp
    for machines, code in (([], refused), ([machine], granted), (["SCMP_ARCH_X86_64", machine], granted)):
        seccomp["architectures"] = machines
        door.write("/probe")
        assert door("run", "t-probe").returncode == code, machines
    program.unlink()


def test_a_filter_goes_with_the_right_to_load_one(door: Door) -> None:
    """Root without no_new_privs: the filter must not hit the runtime's own calls if it can come after them."""
    door.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["setgroups", "capset", "chdir", "getcwd"], "action": "SCMP_ACT_ERRNO"}],
    }
    script = ("sh", "-c", "grep Seccomp: /proc/self/status; cd /tmp || echo refused")
    held = dict.fromkeys(("bounding", "effective", "permitted"), ["CAP_SYS_ADMIN"])
    door.write(*script, noNewPrivileges=False, capabilities=held)
    assert door.ok("run", "t-order").split() == ["Seccomp:", "2", "refused"]
    door.write(*script, noNewPrivileges=True, capabilities={})
    assert door.ok("run", "t-order").split() == ["Seccomp:", "2", "refused"]


def test_a_name_that_no_machine_has_is_passed_over_unless_it_is_asked_about(door: Door) -> None:
    rule = {"names": ["getpid", "getuid32", "sing"], "action": "SCMP_ACT_LOG"}
    door.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    door.write("true")
    door.ok("run", "t-names")
    door.config["annotations"] = {"run.oci.seccomp_fail_unknown_syscall": "1"}
    door.write("true")
    assert "no machine has a system call 'sing'" in door.fails("run", "t-names")


# All by which a process could tell another something; the commands below need none of it
TALK = [
    "sendto",
    "sendmsg",
    "sendmmsg",
    "write",
    "writev",
    "pwrite64",
    "kill",
    "tgkill",
    "recvmsg",
    "recvfrom",
    "socket",
]


@pytest.mark.parametrize("action", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"])
def test_no_filter_can_hide_what_became_of_a_command(door: Door, action: str) -> None:
    script = door.bundle / "rootfs" / "odd"
    script.write_text("#!/no/such\n")
    script.chmod(0o755)
    rules = [{"names": TALK, "action": action}]
    door.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    door.write("/odd")
    door.ok("create", "t-odd")
    assert "/no/such" in door.fails("start", "t-odd")
    door.ok("delete", "t-odd")
    assert "/no/such" in door.fails("run", "t-odd")
    door.write("sleep", "100")
    door.ok("run", "--detach", "t-up")
    assert "/no/such" in door.fails("exec", "t-up", "/odd")
    door.ok("exec", "t-up", "true")


def test_a_command_whose_filter_refuses_the_execve_has_not_started(door: Door) -> None:
    rules = [{"names": ["execve"], "action": "SCMP_ACT_ERRNO", "errnoRet": 11}]
    door.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    door.write("true")
    door.ok("create", "t-never")
    assert "resource temporarily unavailable" in door.fails("start", "t-never").lower()


def test_a_command_that_is_killed_before_its_execve_has_not_started(door: Door) -> None:
    """The filter kills whoever looks why it cannot be executed."""
    script = door.bundle / "rootfs" / "odd"
    script.write_text("#!/no/such\n")
    script.chmod(0o755)
    rules = [{"names": ["open", "openat", "stat", "lstat", "newfstatat", "access"], "action": "SCMP_ACT_KILL_PROCESS"}]
    door.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    door.write("/odd")
    door.ok("create", "t-killed")
    assert "ended without a word" in door.fails("start", "t-killed")
