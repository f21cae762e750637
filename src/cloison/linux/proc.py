"""Processes, told apart from later ones with the same number: a pid alone never names a process.

A process is *(pid, start time)*, the start time in clock ticks since boot (proc(5), /proc/PID/stat field 22); with the
boot id it is unique for ever. Signals go through a pidfd that was opened first and checked second.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import errno
import os

from cloison.errors import InvalidArgument, NotFound

_SET_CHILD_SUBREAPER = 36
_STATE = 0  # fields of /proc/PID/stat after the command's closing parenthesis
_START_TIME = 19
_DEAD = (b"Z", b"X", b"x")

# signal(7), the numbers of x86 and ARM; index 0 is no signal.
_SIGNALS = (
    "0 HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG "
    "XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
).split()
_ALIASES = {"IOT": 6, "CLD": 17, "POLL": 29, "UNUSED": 31}
_RTMIN = 34  # what the C library leaves to programs; 32 and 33 are its own
_RTMAX = 64


def start_time(pid: int) -> int:
    """Clock ticks between boot and the start of this process. Raises: NotFound."""
    return int(read_stat(pid)[1][_START_TIME])


def boot_id() -> str:
    """A name for this boot of the kernel (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def is_alive(pid: int, started: int) -> bool:
    """Whether this very process still runs; a zombie does not."""
    try:
        fields = read_stat(pid)[1]
    except NotFound:
        return False
    return int(fields[_START_TIME]) == started and fields[_STATE] not in _DEAD


def open_pidfd(pid: int, started: int) -> int:
    """A pidfd of this very process, close-on-exec. Raises: NotFound when it is gone, or another has its number."""
    try:
        fd = os.pidfd_open(pid)
    except OSError as err:
        if err.errno in (errno.ESRCH, errno.EINVAL):
            raise gone(pid) from err
        raise
    # Only now: while the pidfd is held, the number can be reused, but the descriptor cannot be redirected.
    try:
        if start_time(pid) == started:
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    raise gone(pid)


def send_signal(pid: int, started: int, signum: int) -> bool:
    """Send a signal to this very process; False when it is gone. Raises: PermissionError."""
    try:
        fd = open_pidfd(pid, started)
    except NotFound:
        return False
    try:
        _signal.pidfd_send_signal(fd, signum)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def parse_signal(text: str) -> int:
    """``TERM``, ``SIGTERM``, ``sigterm``, ``15``, ``RTMIN+3`` or ``SIGRTMAX-1`` to a number, 1 to 64.

    Raises: InvalidArgument.
    """
    name = text.upper().removeprefix("SIG") if text.isascii() else ""
    number = _signal_number(name)
    if not 1 <= number <= _RTMAX:
        raise InvalidArgument(
            f"invalid signal {text!r}",
            why="it is neither a name nor a number of signal(7)",
            hint="use for instance TERM, SIGTERM, 15 or RTMIN+3",
        )
    return number


def signal_name(number: int) -> str:
    """``SIGTERM`` for 15, ``SIGRTMIN+3`` for 37, ``SIG32`` for a number without a name."""
    if 0 < number < len(_SIGNALS):
        return f"SIG{_SIGNALS[number]}"
    if _RTMIN <= number <= _RTMAX:
        offset = number - _RTMIN
        return f"SIGRTMIN+{offset}" if offset else "SIGRTMIN"
    return f"SIG{number}"


def _signal_number(name: str) -> int:
    if name.isascii() and name.isdigit() and len(name) <= 3:
        return int(name)
    if name in _SIGNALS:
        return _SIGNALS.index(name)
    if name in _ALIASES:
        return _ALIASES[name]
    for base, start, sign in (("RTMIN", _RTMIN, "+"), ("RTMAX", _RTMAX, "-")):
        if name == base:
            return start
        offset = name.removeprefix(base + sign)
        if offset != name and offset.isascii() and offset.isdigit() and len(offset) <= 2:
            number = start + int(offset) if sign == "+" else start - int(offset)
            return number if _RTMIN <= number <= _RTMAX else 0
    return 0


def read_stat(pid: int) -> tuple[bytes, list[bytes]]:
    """Its name, and the fields of /proc/PID/stat from the state on. Raises: NotFound when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(4096)
    except (FileNotFoundError, ProcessLookupError) as err:
        raise gone(pid) from err
    if not text:  # it died between open and read
        raise gone(pid)
    end = text.rindex(b")")  # the name may hold blanks and parentheses itself
    return text[text.index(b"(") + 1 : end], text[end + 2 :].split()


def gone(pid: int) -> NotFound:
    """The error for a process that is no more."""
    return NotFound(f"process {pid} is gone", why="it ended, or another process has its number now")


def become_subreaper() -> None:
    """Inherit orphans further down, instead of init (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    from cloison.linux.libc import PRCTL, syscall

    syscall(PRCTL[os.uname().machine], _SET_CHILD_SUBREAPER, 1)


def wait_for_end(pid: int, started: int, *, timeout_s: float | None) -> bool:
    """Wait until this very process has ended; False when the time is over first (None waits for ever)."""
    try:
        fd = open_pidfd(pid, started)
    except NotFound:
        return True
    import select

    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000))
    finally:
        os.close(fd)
