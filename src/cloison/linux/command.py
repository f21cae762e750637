"""The only place that runs a command of the host."""

from __future__ import annotations

import os

from cloison.errors import CloisonError, Unavailable, Unsupported
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SIGKILL, _SIGPIPE = 9, 13
_SAID_BYTES = 64 << 10
# Never the caller's environment: LD_PRELOAD, locale and PATH of a user must not steer what root runs.
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


def run(argv: Sequence[str], *, input: bytes = b"", timeout_s: float = 30.0) -> bytes:
    """Run a command to its end and give back its standard output. No shell.

    Raises: Unsupported when it is not installed; Unavailable when it fails (the last line of its standard error is the
    reason) or does not end in ``timeout_s`` seconds, in which case it was killed.
    """
    import subprocess

    try:
        done = subprocess.run(
            list(argv), input=input, capture_output=True, timeout=timeout_s, env=_ENVIRONMENT, cwd="/", check=False
        )
    except FileNotFoundError as err:
        raise Unsupported(
            f"cannot run {argv[0]}", why="it is not installed", hint=f"install the package that brings {argv[0]}"
        ) from err
    except OSError as err:
        raise Unsupported(f"cannot run {argv[0]}", why=(err.strerror or str(err)).lower()) from err
    except subprocess.TimeoutExpired as err:
        raise Unavailable(f"{argv[0]} was killed", why=f"it did not end within {timeout_s:g} s") from err
    if done.returncode:
        raise _failure(argv[0], done.returncode, stderr=done.stderr)
    return done.stdout


def _failure(name: str, status: int, *, stderr: bytes) -> CloisonError:
    ending = f"signal {-status}" if status < 0 else f"exit status {status}"
    lines = stderr.decode(errors="replace").strip().splitlines()
    return Unavailable(f"{name} failed with {ending}", why=lines[-1].strip() if lines else "it did not say why")


def find(name: str) -> str:
    """The program's path, "" where it is not installed; a name with a slash is the path."""
    directories = [""] if "/" in name else _ENVIRONMENT["PATH"].split(":")
    paths = [f"{directory}/{name}" if directory else name for directory in directories]
    return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), "")


def spawn(argv: Sequence[str], *, descriptors: Mapping[int, int]) -> int:
    """Start a program that has our standard streams, and descriptors of ours; its pid, to be waited for.

    ``descriptors``: number there, 3 or above -> number here. Raises: Unsupported when it cannot be executed.
    """
    import fcntl

    high = max((2, *descriptors)) + 1
    moved: dict[int, int] = {}
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = []
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:  # what the program opens first must not become a standard stream
            actions.append((os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0))
    try:
        for there, here in descriptors.items():  # out of the way of each other
            moved[there] = fcntl.fcntl(here, fcntl.F_DUPFD_CLOEXEC, high)
        actions += [(os.POSIX_SPAWN_DUP2, here, there) for there, here in moved.items()]
        return os.posix_spawn(argv[0], list(argv), _ENVIRONMENT, file_actions=actions, setsigdef=(_SIGPIPE,))
    except OSError as err:
        raise Unsupported(f"cannot run {argv[0]}", why=(err.strerror or str(err)).lower()) from err
    finally:
        for fd in moved.values():
            os.close(fd)


class Outcome(Record):
    """How a program ended and what it said, at most 64 KiB of each stream."""

    code: int  # exit status; minus the signal that killed it
    stdout: bytes
    stderr: bytes
    in_time: bool = True


def run_exactly(
    path: str, *, argv: Sequence[str], environ: Sequence[str], input: bytes, timeout_s: float = 0,
    outputs: tuple[int, int] = (-1, -1),
) -> Outcome:  # fmt: skip
    """Run one program with this argument vector, environment and input, and no other. 0 is no timeout; then KILL.

    Its streams are files in memory: neither side can block the other; or descriptors of the caller's, of which nothing
    is told. Raises: OSError when it cannot be executed.
    """
    streams = open_streams(input, outputs)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate(streams)]
        variables = dict(pair.partition("=")[::2] for pair in environ)
        # Python ignores SIGPIPE, and blocks nothing: a program shall start as from a shell
        pid = os.posix_spawn(path, list(argv) or [path], variables, file_actions=actions, setsigdef=(_SIGPIPE,))
        in_time = _wait(pid, timeout_s)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return Outcome(code=code, in_time=in_time, **read_streams(streams))
    finally:
        for fd in streams:
            os.close(fd)


def open_streams(input: bytes, outputs: tuple[int, int]) -> list[int]:
    """Standard input, output and error for one program, the caller's to close; -1 in ``outputs`` is memory."""
    streams = [os.memfd_create("stdin", os.MFD_CLOEXEC)]
    os.write(streams[0], input)
    os.lseek(streams[0], 0, os.SEEK_SET)
    for fd in outputs:
        streams.append(os.dup(fd) if fd >= 0 else os.memfd_create("output", os.MFD_CLOEXEC))
    return streams


def read_streams(streams: Sequence[int]) -> dict[str, bytes]:
    """What the program said into memory."""
    said = [os.pread(fd, _SAID_BYTES, 0) if "memfd:" in os.readlink(f"/proc/self/fd/{fd}") else b"" for fd in streams]
    return {"stdout": said[1], "stderr": said[2]}


def _wait(pid: int, timeout_s: float) -> bool:
    """Wait for the end of our child, which stays to be reaped; False when it had to be killed."""
    if not timeout_s:
        return True
    import select

    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if poll.poll(timeout_s * 1000):
            return True
    finally:
        os.close(pidfd)
    os.kill(pid, _SIGKILL)  # ours and not yet waited for: the number is no other's
    return False
