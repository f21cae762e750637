"""The launcher's six words about a failure, turned into an error that teaches (docs/launch-plan.md, message ``f``)."""

from __future__ import annotations

import errno
import os

from cloison.errors import CommandNotFound, CommandNotInvocable, LaunchFailed
from cloison.runtime.plan import render_op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.runtime.plan import Op, Operations

# What a verb tried, with its own arguments; the others are named by their verb.
_TRIED = {
    "new-namespaces": "cannot make the container's namespaces",
    "new-network": "cannot make the container's network namespace",
    "join-network": "cannot join the container's network namespace",
    "time-namespace": "cannot make the container's time namespace",
    "join-pid-namespace": "cannot join the container's pid namespace",
    "enter-namespace": "cannot join the {1} namespace {0}",
    "unmount": "cannot unmount {0}",
    "join-namespaces": "cannot join the container's namespaces",
    "join-namespace": "cannot join the {1} namespace {0}",
    "cgroup-fd": "cannot put the container into its cgroup",
    "cgroup-join": "cannot put the container into cgroup {0}",
    "uid-map": "cannot map the container's uids",
    "gid-map": "cannot map the container's gids",
    "root-overlay": "cannot mount the container's root file system",
    "root-bind": "cannot use {1} as the container's root file system",
    "mount": "cannot mount {0} on {2}",
    "bind": "cannot bind {0} on {1}",
    "bind-fd": "cannot bind a descriptor on {1}",
    "directory": "cannot make directory {0} in the container",
    "symlink": "cannot make symlink {1} in the container",
    "device": "cannot make device {0} in the container",
    "console": "cannot make /dev/console in the container",
    "terminal": "cannot make the container's terminal",
    "mask": "cannot mask {0}",
    "readonly-path": "cannot make {0} read-only",
    "readonly-root": "cannot make the root file system read-only",
    "change-root": "cannot change to the container's root file system",
    "pivot-root": "cannot change to the container's root file system",
    "hostname": "cannot set hostname {0}",
    "sysctl": "cannot set sysctl {0} to {1}",
    "rlimit": "cannot set resource limit {0} to {1}:{2}",
    "scheduler": "cannot set the scheduler",
    "io-priority": "cannot set the I/O priority",
    "initial-affinity": "cannot use the CPUs of execCPUAffinity.initial",
    "affinity": "cannot use the CPUs of execCPUAffinity.final",
    "memory-policy": "cannot set the memory policy",
    "personality": "cannot set the personality",
    "oom-score-adj": "cannot set oom_score_adj to {0}",
    "exec-label": "cannot apply the security label {1!r}",
    "user": "cannot become uid {0}, gid {1}",
    "capabilities": "cannot set the container's capabilities",
    "bounding": "cannot reduce the container's capabilities",
    "seccomp": "cannot load the system call filter",
    "cwd": "cannot use working directory {0}",
    "log": "cannot open log {0}",
    "exit-file": "cannot write exit file {0}",
    "await-start": "the container was not started",
}
_HINTS = {
    ("new-namespaces", errno.EPERM): "run as root",
    ("new-namespaces", errno.ENOSPC): "raise the limits in /proc/sys/user/max_*_namespaces",
    ("new-namespaces", errno.EAGAIN): "a pids limit is reached: look at pids.max of the cgroup above and at ulimit -u",
    ("new-network", errno.ENOSPC): "raise the limit in /proc/sys/user/max_net_namespaces",
    ("cgroup-join", errno.EAGAIN): "the pids limit of a cgroup above is reached",
    ("join-pid-namespace", errno.ESRCH): "the container has just ended",
    ("join-namespaces", errno.ESRCH): "the container has just ended",
    ("scheduler", errno.EPERM): "real-time policies need CAP_SYS_NICE, and in a version 1 cpu group cpu.rt_runtime_us",
    ("memory-policy", errno.EINVAL): "a node is not on this machine, or not in the container's cpuset",
    ("affinity", errno.EINVAL): "none of these CPUs is in the container's cpuset",
    ("bind", errno.ENOTDIR): "source and target must both be directories, or both be files",
    ("exec-label", errno.ENOENT): "load the profile first: apparmor_parser --replace FILE",
    ("cwd", errno.ENOENT): "give a directory that exists with --workdir, or without one that is not inside the root",
    ("cwd", errno.EACCES): "the user may not enter that directory",
    ("root-overlay", errno.EBUSY): "another container uses this writable layer",
    ("root-overlay", errno.EINVAL): "the kernel log says what overlayfs did not like",
}
_ELOOP_HINT = "the image has a symlink where cloison needs a real directory"


def launch_failure(words: Sequence[str], *, plan: Operations = ()) -> LaunchFailed:
    """``words``: operation index, verb, call, errno, path, reason.

    ``plan`` gives the words of the operation, if known.
    """
    index, verb, call, number, path, reason = (*words, *("",) * 6)[:6]
    code = int(number) if number.isdecimal() else 0
    failed = plan[int(index)] if index.isdecimal() and int(index) < len(plan) else None
    line = render_op(failed) if failed else verb
    if verb in ("exec", "find-command") and call.startswith("exec"):
        command = str(failed.words[0]) if failed and failed.words else path
        return _command_failure(command, reason, code=code, line=line)
    what = _tried(verb, failed)
    if call == "child":  # it never said what went wrong: reason is killed:N or exited:N
        return LaunchFailed(what, why=_lost(reason), hint="look for 'oom' in the kernel log", operation=line)
    why = f"{call} {path}".strip() + f": {_text(code)}" if call else _text(code)
    hint = _ELOOP_HINT if code == errno.ELOOP else _HINTS.get((verb, code), "")
    return LaunchFailed(what, why=f"{why} ({reason})" if reason else why, hint=hint, operation=line, errno=code)


def _lost(reason: str) -> str:
    kind, _, number = reason.partition(":")
    ends = {"killed": f"was killed by signal {number}", "exited": f"ended with code {number}"}
    end = ends.get(kind, "ended without a word")  # the launcher is not its parent
    return f"the container's first process {end} before its command could be executed"


def _tried(verb: str, failed: Op | None) -> str:
    if verb == "launch":  # no operation is to blame
        return "the launcher failed"
    text = _TRIED.get(verb)
    if text is None or (failed is None and "{" in text):
        return f"operation '{verb}' of the launch plan failed"
    return text.format(*failed.words) if failed else text


def _text(code: int) -> str:
    if not code:
        return "refused"
    return f"{os.strerror(code).lower()} ({errno.errorcode.get(code, code)})"


def _command_failure(command: str, reason: str, *, code: int, line: str) -> LaunchFailed:
    """One of the reasons why a command cannot start; by errno it is 127 when something is not there, else 126."""
    kind, _, path = reason.partition(":")
    why, hint = _reason(kind, path, command, code)
    missing = code == errno.ENOENT or kind in ("missing", "interpreter", "loader")
    error = CommandNotFound if missing else CommandNotInvocable
    return error(f'exec: "{command}"', why=why, hint=hint, operation=line, errno=code)


def _reason(kind: str, path: str, command: str, code: int) -> tuple[str, str]:
    if kind == "missing" and "/" not in command:
        return "executable file not found in $PATH", "the image has no such program, or it lies outside of its PATH"
    if kind == "missing":
        return "no such file or directory", "the image has no file of this name"
    if kind == "interpreter":
        return f"its interpreter {path!r} does not exist (first line, '#!')", _interpreter_hint(path)
    if kind == "loader":
        return f"its ELF loader {path!r} does not exist", "the program was built for a C library that the image lacks"
    if kind == "architecture":
        return "exec format error: built for another architecture", "use an image of this machine's --platform"
    if kind == "permission":
        return "permission denied", "the file is not executable (chmod +x), or its mount is noexec"
    if kind == "directory":
        return "is a directory", "name a program inside of it"
    if kind == "format":
        return "exec format error: neither an ELF program nor a script with '#!'", "run it by a shell: sh FILE"
    return _text(code), ""


def _interpreter_hint(path: str) -> str:
    if path.endswith(("\r", "\\r")):
        return "the script has Windows line endings: convert it with dos2unix"
    return "install that interpreter in the image, or correct the first line of the script"
