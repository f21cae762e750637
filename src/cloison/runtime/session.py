"""A conversation with a monitor: client 0 (who launched) or an attached client (docs/launch-plan.md, "Messages")."""

from __future__ import annotations

import _socket
import _thread
import os
import sys

from cloison.errors import Conflict, Internal, NotFound, Unavailable
from cloison.model.record import Record
from cloison.runtime.exits import Exit, parse_exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.errors import LaunchFailed
    from cloison.runtime.plan import Operations

__all__ = ["Exit", "Message", "Session", "connect", "listen", "parse_exit", "reap_children"]

STDIN, STDOUT, STDERR, OWNS_INPUT = 1, 2, 4, 8  # bits of message A
ATTACH_TO_ALL = bytes((0x41, STDIN | STDOUT | STDERR))
_CHUNK = 32 << 10  # of one message of input: well below a socket's buffer
_LARGEST = 64 << 10  # of one message to us: output comes in pieces of 32 KiB
_SUN_PATH = 107  # unix(7): bytes of a socket's path
_REPORT_BYTES = 4096  # as in launcher.h
_KIND = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC


class Message(Record):
    """What a monitor says.

    kind: ``created`` (pid), ``netlink`` and ``listener`` (of a seccomp filter; fd, the caller's to close), ``waiting``
    (for `Session.start`), ``started``, ``failed`` (error, built, not raised), ``output`` (stream 1 or 2, data),
    ``exited`` (exit), ``closed`` (the monitor is gone; nothing follows).
    """

    kind: str
    pid: int = 0
    fd: int = -1
    stream: int = 0
    data: bytes = b""
    error: LaunchFailed | None = None
    exit: Exit | None = None


class Session:
    """One client's end. One thread receives; any thread may send. A context manager that closes.

    ``id`` is the caller's name for what runs here; ``pid`` is the command's in our pid namespace once it is known.
    """

    def __init__(self, socket: _socket.socket, *, id: str = "", launcher: int = 0, plan: Operations = ()) -> None:
        self.id = id
        self.pid = 0
        self.exit: Exit | None = None
        self._socket = socket
        self._launcher = launcher
        self._plan = plan
        self._ended = any(op.verb == "detach" for op in plan)  # then our own child leaves at once
        self._buffer = bytearray(0)

    def fileno(self) -> int:
        """Readable when `receive` has something; -1 once closed."""
        return self._socket.fileno()

    # -- from the monitor

    def receive(self, timeout_s: float | None = None) -> Message:
        """The next message.

        Raises: TimeoutError after ``timeout_s`` (None waits for ever); Internal for one that was cut.
        """
        while True:
            message = self._receive_any(timeout_s)
            if message is not None:  # a kind we do not know is from a later release's monitor
                return message

    def _receive_any(self, timeout_s: float | None) -> Message | None:
        if timeout_s is not None and not _readable(self._socket.fileno(), timeout_s):
            raise TimeoutError("the monitor has said nothing yet")
        if not self._buffer:
            self._buffer = bytearray(_LARGEST)
        try:
            size, ancillary, flags, _ = self._socket.recvmsg_into((self._buffer,), 64, _socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:  # it was killed with words of ours unread
            size, ancillary, flags = 0, [], 0
        fds = _descriptors(ancillary)
        if flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
            _close_all(fds)
            raise Internal("a message of the monitor was cut", why=f"it has more than {_LARGEST} bytes")
        return self._understand(bytes(memoryview(self._buffer)[:size]), fds)

    def _understand(self, packet: bytes, fds: list[int]) -> Message | None:
        kind, body = packet[:1], packet[1:]
        if kind in (b"n", b"y") and len(fds) == 1:
            return Message(kind="netlink" if kind == b"n" else "listener", fd=fds[0])
        _close_all(fds)
        if kind == b"o" or kind == b"e":
            return Message(kind="output", stream=1 if kind == b"o" else 2, data=body)
        if kind == b"c":
            self.pid = int(body)
            return Message(kind="created", pid=self.pid)
        if kind == b"s" or kind == b"w":
            return Message(kind="started" if kind == b"s" else "waiting", pid=self.pid)
        if kind not in (b"x", b"f", b""):
            return None
        self._ended = True
        if kind == b"x":
            self.exit = parse_exit(body.decode())
            return Message(kind="exited", exit=self.exit)
        if kind == b"f":
            return Message(kind="failed", error=_failure(body, plan=self._plan))
        return Message(kind="closed")

    def wait(self, timeout_s: float | None = None) -> Exit | None:
        """The command's end; output on the way is dropped. None when the monitor went without telling.

        Raises: LaunchFailed and its kinds; TimeoutError when ``timeout_s`` passes without any message.
        """
        while self.exit is None:
            message = self.receive(timeout_s)
            if message.error is not None:
                raise message.error
            if message.fd >= 0:
                os.close(message.fd)
            if message.kind == "closed":
                return None
        return self.exit

    # -- to the monitor

    def proceed(self) -> None:
        """The launcher may go on (``await-client``); when it cannot any more, its last words tell why."""
        try:
            self._send(b"G")
        except Conflict:
            pass

    def cancel(self) -> None:
        """Give up a start that waits for `proceed`; on return nothing of it is left."""
        try:
            self._send(b"C")
        except Conflict:
            pass
        while (message := self.receive()).kind not in ("failed", "closed"):
            if message.fd >= 0:  # of a network that nobody configures any more
                os.close(message.fd)
        self.close()

    def start(self) -> None:
        """Release a command that waits (``await-start``). Raises: Conflict when the monitor is gone."""
        self._send(b"S")

    def attach(
        self, *, stdin: bool = False, stdout: bool = False, stderr: bool = False, owns_input: bool = False
    ) -> None:
        """Ask for output and news from now on, and for the right to give input; nothing but the news without a stream.

        ``owns_input``: when we hang up without `detach`, the command's input ends. Raises: Conflict.
        """
        bits = STDIN * stdin | STDOUT * stdout | STDERR * stderr | OWNS_INPUT * owns_input
        self._send(bytes((0x41, bits)))

    def send_input(self, data: bytes) -> None:
        """Bytes for stdin; waits while the command does not read. Raises: Conflict when the monitor is gone."""
        for start in range(0, len(data), _CHUNK):
            self._send(b"I" + data[start : start + _CHUNK])

    def end_input(self) -> None:
        self._send(b"E")

    def resize(self, *, rows: int, columns: int) -> None:
        self._send(b"W" + b"".join(min(number, 0xFFFF).to_bytes(2, "little") for number in (rows, columns)))

    def detach(self) -> None:
        """No more output, no more input from us; the command goes on."""
        self._send(b"D")

    def _send(self, packet: bytes) -> None:
        try:
            self._socket.send(packet, _socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionError) as err:
            raise Conflict("the command has ended", why="its monitor is gone") from err

    # -- the end

    def leave(self) -> None:
        """Hang up on a launcher that has no more to do (``no-monitor``), and wait for its end.

        From then on the command is the child of whoever inherits it.
        """
        self.detach()
        self._socket.close()
        pid, self._launcher = self._launcher, 0
        if pid:
            os.waitpid(pid, 0)

    def close(self) -> None:
        """Hang up, and take the launcher's process off the kernel's table as soon as it is done.

        Closing twice is fine.
        """
        if self._socket.fileno() >= 0:
            self._socket.close()
        pid, self._launcher = self._launcher, 0
        if pid and not (_reap(pid) or (self._ended and _reap_soon(pid))):
            with _lock:
                _children.add(pid)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_failure: object) -> None:
        self.close()


# Launchers that outlived their session (the caller hung up on a running container): children of this process all the
# same, so the next launch looks after them.
_children: set[int] = set()
_lock = _thread.allocate_lock()


def reap_children() -> None:
    """Collect launchers that have ended since their sessions were closed; never waits."""
    if _children:
        with _lock:
            _children.difference_update([pid for pid in _children if _reap(pid)])


def _reap(pid: int) -> bool:
    """Whether it is gone; ECHILD says that somebody else in this program has waited for it."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _reap_soon(pid: int) -> bool:
    # It has said its last word, what is left is its exit; bounded all the same, because it may execute the plan's
    # ``reap``.
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return _reap(pid)
    try:
        _readable(fd, 0.25)
    finally:
        os.close(fd)
    return _reap(pid)


def _readable(fd: int, timeout_s: float) -> bool:
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout_s) * 1000))


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found: list[int] = []
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            found += [int.from_bytes(data[i : i + 4], sys.byteorder) for i in range(0, len(data) // 4 * 4, 4)]
    return found


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _failure(words: bytes, *, plan: Operations = ()) -> LaunchFailed:
    from cloison.runtime.failure import launch_failure  # most launches go well

    return launch_failure([word.decode("utf-8", "surrogateescape") for word in words.split(b"\0")], plan=plan)


def make_report(path: str) -> int:
    """The file that ``await-start-on`` reports in, which must not exist; the caller closes the descriptor.

    Raises: OSError.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.write(fd, bytes(_REPORT_BYTES))  # now, while its memory is ours and not the container's
    return fd


def check_report(path: str) -> None:
    """What became of a command, when who waited for its start (``await-start-on``) has hung up.

    Raises: LaunchFailed and its kinds; Internal when it was killed before it was executed; OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        text = os.read(fd, _REPORT_BYTES)
    finally:
        os.close(fd)
    if text[:1] == b"f":
        raise _failure(text[1:])
    if text[:1] != b"x":
        raise Internal("the command could not be started", why="it ended without a word")


def connect(path: str, *, id: str = "") -> Session:
    """A further client of a running monitor. Raises: NotFound (no monitor listens there), Unavailable."""
    socket = _socket.socket(_socket.AF_UNIX, _KIND)
    try:
        with _Address(path) as address:
            socket.connect(address)
    except (FileNotFoundError, ConnectionRefusedError) as err:
        socket.close()
        raise NotFound("the container's monitor is not there", why=f"nobody listens on {path}") from err
    except OSError as err:
        socket.close()
        raise Unavailable("cannot reach the container's monitor", why=os.strerror(err.errno or 0).lower()) from err
    return Session(socket, id=id)


def listen(path: str) -> int:
    """A listening socket for a monitor at ``path``, which must not exist; the caller closes the descriptor.

    Its directory is what keeps others out. Raises: OSError.
    """
    socket = _socket.socket(_socket.AF_UNIX, _KIND)
    try:
        with _Address(path) as address:
            socket.bind(address)
        socket.listen(16)
    except BaseException:
        socket.close()
        raise
    return socket.detach()


class _Address:
    """The path of a socket, by way of its directory's descriptor when it is too long for the kernel."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) <= _SUN_PATH:
            return self._path
        directory, name = os.path.split(self._path)
        self._fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._fd}/{name}"

    def __exit__(self, *_failure: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
