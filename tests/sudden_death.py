"""Kills one process of a command's family just before its n-th call that changes the world: ptrace(2) and seccomp(2).

A filter lets everything pass but the calls in `CHANGES`; at those the family stops, is counted by role, and goes on:
the *command* that was typed, the *monitor* it starts (the launcher, which may become ``cloison _reap``), and *init*,
the monitor's first child; a launcher that detaches comes between the first two. So a point in a run has a name that
holds from run to run, ("monitor", 17), whatever the processes' timing. The call before which one dies is not made.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cloison.linux import syscalls

ATTACHED = ("command", "monitor", "init")
DETACHED = ("command", "launcher", "monitor", "init")
CHANGES = frozenset(
    "write pwrite64 writev pwritev copy_file_range sendfile splice ftruncate truncate fallocate "
    "mkdir mkdirat rmdir rename renameat renameat2 link linkat unlink unlinkat symlink symlinkat mknod mknodat "
    "chmod fchmod fchmodat chown fchown lchown fchownat utimensat setxattr lsetxattr fsetxattr removexattr "
    "mount umount2 pivot_root chroot unshare setns fsopen fsconfig fsmount open_tree move_mount mount_setattr "
    "memfd_create bind connect listen sendto sendmsg sendmmsg sethostname setdomainname add_key keyctl bpf "
    "clone clone3 fork vfork execve execveat kill tkill tgkill pidfd_send_signal".split()
)
CREATES = os.O_CREAT | os.O_TRUNC  # an open with one of these changes the world, too

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALLOW, _TRACE = 0x7FFF0000, 0x7FF00000
_LOAD, _EQUAL, _BITS, _RETURN = 0x20, 0x15, 0x45, 0x06
_TRACEME, _CONT, _SETOPTIONS, _GETEVENTMSG = 0, 7, 0x4200, 0x4201
_FORK, _VFORK, _CLONE, _SECCOMP = 1, 2, 3, 7
_OPTIONS = 0x100000 | 1 << _FORK | 1 << _VFORK | 1 << _CLONE | 1 << 4 | 1 << _SECCOMP  # EXITKILL and the events
_ALL = 0x40000000  # __WALL: threads and clones without SIGCHLD, too

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


class Story(NamedTuple):
    """How it went: calls that were made, (role, name) in order, the exit code of the command, whether somebody died."""

    calls: tuple[tuple[str, str], ...]
    code: int
    killed: bool

    def count(self, role: str) -> int:
        return sum(who == role for who, _ in self.calls)

    def made(self, role: str, name: str) -> int:
        return self.calls.count((role, name))


def run(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    point: tuple[str, int] = ("", 0),
    roles: Sequence[str] = ATTACHED,
) -> Story:
    """Run a family to the end of its last member; at ``point``, a role and the number of a call from 1, that one dies.

    For a process without threads or children. Standard streams are /dev/null. ``roles``: each the first's child.
    """
    program = _filter()
    pid = os.fork()  # what is done in between, posix_spawn cannot
    if not pid:
        _become(argv, environ, program)
    return _Family(pid, roles, point).watch()


def _become(argv: Sequence[str], environ: Mapping[str, str], program: bytes) -> None:
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.close(null)
        _libc.ptrace(_TRACEME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        code = ctypes.create_string_buffer(program, len(program))
        head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
        if _libc.prctl(22, 2, head, 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
            os._exit(125)
        os.execve(argv[0], list(argv), dict(environ))
    finally:
        os._exit(126)


def _filter() -> bytes:
    """Classic BPF: TRACE with the call's number for those in `CHANGES` and for opens that create."""
    machine = platform.machine()
    numbers = syscalls.numbers(machine)
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _AUDIT[machine]), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, 0)]
    for name, argument in (("open", 1), ("openat", 2)):
        if name in numbers:
            trace = (_RETURN, 0, 0, _TRACE | numbers[name])
            flags = (_LOAD, 0, 0, 16 + 8 * argument)
            code += [(_EQUAL, 0, 4, numbers[name]), flags, (_BITS, 0, 1, CREATES), trace, (_RETURN, 0, 0, _ALLOW)]
    for name in sorted(CHANGES & numbers.keys()):
        code += [(_EQUAL, 0, 1, numbers[name]), (_RETURN, 0, 0, _TRACE | numbers[name])]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


class _Family:
    """Everybody who descends from one process, until nobody is left."""

    def __init__(self, pid: int, roles: Sequence[str], point: tuple[str, int]) -> None:
        self._first = pid
        self._roles = {pid: roles[0]}
        self._alive = {pid}
        self._waiting: set[int] = set()  # newborns that stopped before their parent told of them
        self._next = dict(zip(roles, roles[1:], strict=False))
        self._names = {number: name for name, number in syscalls.numbers(platform.machine()).items()}
        self._victim, self._at = point
        self._calls: list[tuple[str, str]] = []
        self._code = -1
        self._killed = False

    def watch(self) -> Story:
        _, status = os.waitpid(self._first, _ALL)
        assert os.WIFSTOPPED(status), "the command did not stop for us"
        self._ptrace(_SETOPTIONS, self._first, _OPTIONS)
        self._ptrace(_CONT, self._first)
        while self._alive:
            pid, status = os.waitpid(-1, _ALL)
            if os.WIFSTOPPED(status):
                self._alive.add(pid)
                self._stopped(pid, os.WSTOPSIG(status), status >> 16)
                continue
            self._alive.discard(pid)
            if pid == self._first:
                self._code = os.waitstatus_to_exitcode(status)
        return Story(tuple(self._calls), self._code, self._killed)

    def _stopped(self, pid: int, number: int, event: int) -> None:
        if pid not in self._roles:
            self._waiting.add(pid)
            return
        if event in (_FORK, _VFORK, _CLONE):
            self._born(self._message(pid), parent=pid)
        elif event == _SECCOMP and self._dies(pid):
            os.kill(pid, signal.SIGKILL)
            return
        pass_on = 0 if event or number in (signal.SIGTRAP, signal.SIGSTOP) else number
        self._ptrace(_CONT, pid, pass_on)

    def _born(self, pid: int, *, parent: int) -> None:
        role = self._next.pop(self._roles[parent], "other")  # the first child of each has the next role
        self._roles[pid] = role
        self._alive.add(pid)  # its first stop may come after its parent's end
        if pid in self._waiting:
            self._waiting.discard(pid)
            self._ptrace(_CONT, pid)

    def _dies(self, pid: int) -> bool:
        role = self._roles[pid]
        if role == self._victim and not self._killed and sum(who == role for who, _ in self._calls) + 1 == self._at:
            self._killed = True
            return True
        self._calls.append((role, self._names.get(self._message(pid), "?")))
        return False

    def _message(self, pid: int) -> int:
        value = ctypes.c_ulong()
        self._ptrace(_GETEVENTMSG, pid, ctypes.addressof(value))
        return value.value

    @staticmethod
    def _ptrace(request: int, pid: int, data: int = 0) -> None:
        if _libc.ptrace(request, pid, None, data) < 0 and ctypes.get_errno() != 3:  # ESRCH: killed by somebody else
            raise OSError(ctypes.get_errno(), f"ptrace request {request:#x}")
