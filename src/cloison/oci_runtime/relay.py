"""Bytes between the caller's terminal and the container's, as long as a command lives in the foreground."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import errno
import fcntl
import os
import select
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIZE = bytes(8)  # struct winsize
_CHUNK = 32 << 10


def relay(master: int, *, pid: int) -> None:
    """Until the command of this pid has closed its terminal; the caller's is put back. Closes ``master``."""
    saved = _raw(0)
    _resize(master)
    previous = _signal.signal(_signal.SIGWINCH, lambda _number, _frame: _resize(master))
    try:
        _copy(master, pid)
    finally:
        _signal.signal(_signal.SIGWINCH, previous or _signal.SIG_DFL)
        if saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)
        os.close(master)


def _raw(fd: int) -> list[Any] | None:
    """As cfmakeraw(3); the settings before, None when this is no terminal."""
    try:
        saved = termios.tcgetattr(fd)
    except termios.error:
        return None
    mode = list(saved)
    mode[0] &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
        | termios.ICRNL | termios.IXON
    )  # fmt: skip
    mode[1] &= ~termios.OPOST
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    termios.tcsetattr(fd, termios.TCSADRAIN, mode)
    return list(saved)


def _resize(master: int) -> None:
    try:
        fcntl.ioctl(master, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, _SIZE))
    except OSError:
        pass  # the caller has no terminal: the size stays


def _copy(master: int, pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    for fd in (master, 0, pidfd):
        poll.register(fd, select.POLLIN)
    try:
        ended = False
        while True:
            ready = dict(poll.poll(0 if ended else None))
            if master in ready:
                if not (data := _read(master)):
                    return
                _write(1, data)
            elif ended:
                return
            if 0 in ready:
                data = _read(0)
                if data:
                    _write(master, data)
                else:
                    poll.unregister(0)
            ended = ended or pidfd in ready
    finally:
        os.close(pidfd)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError as err:
        if err.errno == errno.EIO:  # nobody has the other end open
            return b""
        raise


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
