"""``run`` and ``exec`` without ``--detach``: the caller stays, as the command's parent, until that ends."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import os
import sys

from cloison.linux import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType

# About this process itself: children, pipes, terminal, faults; 32 and 33 belong to the C library.
_OWN = frozenset((
    _signal.SIGKILL, _signal.SIGSTOP, _signal.SIGCHLD, _signal.SIGPIPE, _signal.SIGURG, _signal.SIGWINCH,
    _signal.SIGTTIN, _signal.SIGTTOU, _signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL, 32, 33,
))  # fmt: skip


class Foreground:
    """From before the command exists to its end; a context manager.

    With ``terminal`` its master arrives at our end of ``console`` and is joined with the caller's terminal.
    """

    def __init__(self, *, terminal: bool) -> None:
        self._target: tuple[int, int] | None = None
        self._early: list[int] = []  # signals that came before there was a command
        for number in range(1, _signal.NSIG):
            if number not in _OWN:
                _signal.signal(number, self._forward)
        self._ours: _socket.socket | None = None
        self._theirs: _socket.socket | None = None
        if terminal:
            self._ours, self._theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)

    @property
    def console(self) -> int:
        """What the launcher is given for the terminal; -1 is none."""
        return self._theirs.fileno() if self._theirs else -1

    def __enter__(self) -> Foreground:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        for socket in (self._ours, self._theirs):
            if socket is not None:
                socket.close()

    def wait(self, pid: int, started: int) -> int:
        """Forward signals and bytes until the command has ended; its exit status, 128 + signal when it was killed."""
        self._target = (pid, started)
        for number in self._early:
            self._forward(number, None)
        if self._ours is not None:
            from cloison.oci_runtime.relay import relay

            relay(_receive_master(self._ours), pid=pid)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if self._target is None:
            self._early.append(number)
        else:
            proc.send_signal(*self._target, number)


def _receive_master(socket: _socket.socket) -> int:
    """The terminal's master, which the launcher has sent already."""
    _, ancillary, _, _ = socket.recvmsg(64, 64, _socket.MSG_CMSG_CLOEXEC)
    return [int.from_bytes(data[:4], sys.byteorder) for _level, _kind, data in ancillary][0]
