"""Descriptors that the caller hands on: ``--preserve-fds N`` and systemd's socket activation (sd_listen_fds(3))."""

from __future__ import annotations

import fcntl

from cloison.errors import InvalidArgument
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.oci_runtime.options import Call

_MOST = 253  # the launcher's bound, without the standard streams
_STANDARD = 3


class Inherited(Record):
    """Numbers from 3 on, and what the command is told of them."""

    fds: tuple[int, ...] = ()
    env: tuple[str, ...] = ()


def inherited(call: Call) -> Inherited:
    """Those among the numbers asked for that are open; holes stay holes. Raises: InvalidArgument."""
    listening = call.environ.get("LISTEN_FDS", "")
    sockets = int(listening) if listening.isascii() and listening.isdigit() and len(listening) < 4 else 0
    count = sockets + (call.number("preserve-fds") or 0)
    if not 0 <= count <= _MOST:
        raise InvalidArgument(f"cannot preserve {count} descriptors", why=f"{_MOST} are possible")
    fds = tuple(fd for fd in range(_STANDARD, _STANDARD + count) if _is_the_callers(fd))
    # the command is process 1 of its pid namespace, as far as the caller can know
    return Inherited(fds=fds, env=(f"LISTEN_FDS={sockets}", "LISTEN_PID=1") if sockets else ())


def _is_the_callers(fd: int) -> bool:
    """Open, and not by this process: what Python opens is closed at an execve."""
    try:
        return not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    except OSError:
        return False
