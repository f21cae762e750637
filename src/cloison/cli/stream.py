"""Between the user's descriptors and a session: keys in, output out, until the command ends or the user lets go."""

from __future__ import annotations

import errno
import os
import select

from cloison.cli import output
from cloison.errors import CloisonError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloison.cli.terminal import DetachScanner
    from cloison.runtime.session import Message, Session

# A seqpacket socket that reports POLLOUT takes this much without blocking: unix_writable() leaves three quarters free
CHUNK = 16 << 10
DEFAULT_OUTPUTS: Mapping[int, int] = {1: output.STDOUT, 2: output.STDERR}


class Streamer:
    """One loop over the user's input and the session.

    Input is only sent when the socket has room, so that a container that writes before it reads cannot lock up both
    sides.
    """

    def __init__(
        self, session: Session, *, stdin: int = -1, scanner: DetachScanner | None = None,
        outputs: Mapping[int, int] = DEFAULT_OUTPUTS,
    ) -> None:  # fmt: skip
        self._session = session
        self._stdin = stdin
        self._scanner = scanner
        self._outputs = outputs
        self._unsent = b""
        self._ended = stdin < 0
        self.detached = False
        self.last: Message | None = None

    def run(self) -> Message | None:
        """Stream to the end. Gives the message of the exit, None when the user detached or the monitor went away.

        Raises: LaunchFailed and its kinds when the command could not be executed; BrokenPipeError.
        """
        while True:
            for fd, events in self._poller().poll():
                if fd == self._session.fileno():
                    if events & select.POLLOUT:
                        self._send()
                    if events & ~select.POLLOUT and not self._receive():
                        return self.last
                elif not self._read():
                    return None

    def _poller(self) -> select.poll:
        poller = select.poll()
        poller.register(self._session.fileno(), select.POLLIN | (select.POLLOUT if self._unsent else 0))
        if not self._ended and not self._unsent:
            poller.register(self._stdin, select.POLLIN)
        return poller

    def _receive(self) -> bool:
        """Take one message; False at the end."""
        message = self._session.receive()
        if message.kind == "output":
            target = self._outputs.get(message.stream, -1)
            if target >= 0:
                self._write(target, message.data)
        elif message.kind == "failed" and message.error is not None:
            raise message.error
        elif message.kind == "exited":
            self.last = message
            return False
        return message.kind != "closed"

    def _write(self, fd: int, data: bytes) -> None:
        try:
            output.write_all(fd, data)
        except OSError as err:
            if err.errno == errno.EIO:  # a terminal that was hung up is a reader that has gone
                raise BrokenPipeError(err.errno, "the terminal was hung up") from err
            raise

    def _read(self) -> bool:
        """Take what was typed; False when it was the detach keys."""
        try:
            data = os.read(self._stdin, CHUNK)
        except BlockingIOError:
            return True
        except OSError as err:
            if err.errno != errno.EIO:  # EIO: the terminal was hung up
                raise
            data = b""
        if not data:
            self._ended = True
            self._quietly(self._session.end_input)
            return True
        if self._scanner is not None:
            data, self.detached = self._scanner.feed(data)
        self._unsent = data
        if self.detached:
            self._send()
            self._quietly(self._session.detach)
        return not self.detached

    def _send(self) -> None:
        data, self._unsent = self._unsent, b""
        if data:
            self._quietly(lambda: self._session.send_input(data))

    def _quietly(self, send: Callable[[], None]) -> None:
        """The monitor may have gone between its last message and this; the end of the session will say so."""
        try:
            send()
        except CloisonError:
            self._ended = True
