"""What the caller hands over, and where it is told: standard streams, the console's socket, the pid file."""

from __future__ import annotations

import _socket
import os

from cloison.errors import InvalidArgument
from cloison.model.container import Stdio
from cloison.store.atomic import write_file


def standard_streams(*, terminal: bool) -> Stdio:
    """The caller's own three descriptors, handed over; one that is closed is /dev/null."""
    if terminal:
        return Stdio(stdin="pty", stdout="pty", stderr="pty")
    stdin, stdout, stderr = (f"fd:{fd}" if is_open(fd) else "null" for fd in range(3))
    return Stdio(stdin=stdin, stdout=stdout, stderr=stderr)


def is_open(fd: int) -> bool:
    """Whether the number is a descriptor of this process."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def write_pid_file(path: str, pid: int) -> None:
    """Whole or not at all: a caller may be watching. Raises: Denied, Unavailable."""
    write_file(os.path.abspath(path), str(pid), durable=False, mode=0o644)


def connect_console(path: str) -> _socket.socket:
    """The caller's console socket. Raises: InvalidArgument."""
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        socket.connect(path)
    except OSError as err:
        socket.close()
        raise InvalidArgument(f"cannot use console socket {path}", why=os.strerror(err.errno or 0).lower()) from err
    return socket


def check_terminal(*, terminal: bool, console: str, detached: bool) -> None:
    """Raises: InvalidArgument in runc's words."""
    if detached and terminal and not console:
        raise InvalidArgument(
            "cannot allocate tty if the runtime will detach without setting console socket: use --console-socket"
        )
    if console and not (detached and terminal):
        raise InvalidArgument("cannot use console socket if the runtime will not detach or allocate tty")
