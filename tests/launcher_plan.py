"""The tests' own encoder of launch plans, and a driver of the launcher: independent of the package, on purpose.

Format and messages: docs/launch-plan.md.
"""

from __future__ import annotations

import array
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = os.path.dirname(os.path.abspath(__file__))
# Another build can be put in its place, for example one that was weakened on purpose: these tests must then fail.
LAUNCHER = os.environ.get("CLOISON_TEST_LAUNCHER") or os.path.join(
    os.path.dirname(HERE), "src", "cloison", "libexec", "cloison-launcher"
)
ASAN_LAUNCHER = os.path.join(os.path.dirname(HERE), "build", "launcher-asan")

Word = str | bytes | int
LIVE: list[Run] = []  # what a failed test would leave behind
Operation = tuple[Word, ...]


def word(value: Word) -> bytes:
    data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
    return len(data).to_bytes(4, "little") + data + b"\0"


def encode(operations: Iterable[Operation]) -> bytes:
    ops = [len(op).to_bytes(4, "little") + b"".join(map(word, op)) for op in operations]
    body = b"".join(ops)
    return b"clsn" + b"".join(n.to_bytes(4, "little") for n in (1, 16 + len(body), len(ops))) + body


@dataclass
class Fault:
    """The six words of a failure message."""

    index: int
    verb: str
    call: str
    errno: int
    path: str
    reason: str


@dataclass
class Run:
    """A launched plan, as its caller (client 0) sees it. Messages are kept in `seen`."""

    process: subprocess.Popen[bytes]
    client: socket.socket
    seen: list[bytes] = field(default_factory=list)
    fds: list[int] = field(default_factory=list)

    def send(self, kind: str, data: bytes = b"") -> None:
        self.client.send(kind.encode() + data)

    def receive(self, timeout: float = 20) -> bytes:
        """One message, b"" at the end."""
        ready, _, _ = select.select([self.client], [], [], timeout)
        if not ready:
            raise TimeoutError(f"no message; so far {self.seen!r}")
        data, ancillary, _, _ = self.client.recvmsg(1 << 17, socket.CMSG_SPACE(8))
        for _, _, payload in ancillary:
            got = array.array("i")
            got.frombytes(payload)
            self.fds += list(got)
        if data:
            self.seen.append(data)
        return data

    def until(self, kinds: str, timeout: float = 20) -> bytes:
        """The first message of one of these kinds, new ones only."""
        deadline = time.monotonic() + timeout
        while True:
            data = self.receive(max(0.0, deadline - time.monotonic()))
            if not data:
                raise EOFError(f"the monitor hung up; seen {self.seen!r}")
            if chr(data[0]) in kinds:
                return data

    def pid(self) -> int:
        for data in self.seen:
            if data[:1] == b"c":
                return int(data[1:])
        return int(self.until("c")[1:])

    def exit(self, timeout: float = 20) -> dict[str, int]:
        """The exit file's numbers, out of the last message."""
        return parse_exit(self.until("x", timeout)[1:].decode())

    def fault(self, timeout: float = 20) -> Fault:
        words = self.until("f", timeout)[1:].split(b"\0")
        assert len(words) == 7, words
        assert words[6] == b"", words
        text = [w.decode("utf-8", "surrogateescape") for w in words]
        return Fault(int(text[0]), text[1], text[2], int(text[3]), text[4], text[5])

    def output(self, kind: bytes = b"o") -> bytes:
        return b"".join(data[1:] for data in self.seen if data[:1] == kind)

    def close(self, timeout: float = 20) -> int:
        """Hang up and wait for the launcher: its exit status."""
        LIVE.remove(self)
        self.client.close()
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def parse_exit(text: str) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split(" ", 1) for line in text.splitlines())}


def launch(
    operations: Sequence[Operation],
    *,
    fds: Sequence[int] = (),
    preexec: object = None,
    stdin: int = subprocess.DEVNULL,
    launcher: str = LAUNCHER,
    client: bool = True,
) -> Run:
    """Start the launcher; a word ``{0}``, ``fd:{1}`` … stands for the number of ``fds[0]``, ``fds[1]`` … there."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    first = 100
    given = [*fds, theirs.fileno()]
    names = [str(first + 1 + n) for n in range(len(given))]
    ops: list[Operation] = [("client", names[-1])] if client else []
    ops += [tuple(w.format(*names) if isinstance(w, str) and "{" in w else w for w in op) for op in operations]
    plan = os.memfd_create("plan")
    os.write(plan, encode(ops))

    def child() -> None:
        for number, fd in enumerate([plan, *given]):
            os.dup2(fd, first + number, inheritable=True)
        if callable(preexec):
            preexec()

    process = subprocess.Popen(
        [launcher, str(first), str(1 + len(given))],
        preexec_fn=child,
        close_fds=False,
        stdin=stdin,
    )
    os.close(plan)
    theirs.close()
    LIVE.append(Run(process, ours))
    return LIVE[-1]


def end_all() -> int:
    """Kills what is left (a container dies with its monitor); how many there were."""
    left = len(LIVE)
    while LIVE:
        LIVE[-1].process.kill()
        LIVE[-1].close()
    return left


@contextmanager
def made_world(directory: Path) -> Iterator[World]:
    """A world for one test; afterwards its launchers are gone and nothing of it is mounted on the host."""
    world = World(str(directory))
    try:
        yield world
    finally:
        end_all()
    assert str(directory) not in Path("/proc/self/mountinfo").read_text(), "a mount leaked to the host"


NAMESPACES = ("new-namespaces", "mnt", "pid", "net", "ipc", "uts")


class World:
    """A root of busybox, a staging directory and the operations that make a container of them, in one directory."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.root = os.path.join(directory, "root")
        self.staging = os.path.join(directory, "staging")
        os.makedirs(os.path.join(self.root, "bin"))
        os.mkdir(self.staging)
        target = os.path.join(self.root, "bin", "busybox")
        with open("/bin/busybox", "rb") as source, open(target, "wb") as copy:
            copy.write(source.read())
        os.chmod(target, 0o755)
        for applet in APPLETS.split():
            os.symlink("busybox", os.path.join(self.root, "bin", applet))

    def mounts(self, *, root: Operation | None = None, extra: Sequence[Operation] = ()) -> list[Operation]:
        """Root, proc, dev, devpts, ``extra``, pivot."""
        return [
            ("propagation", "/", "rprivate"),
            root or ("root-bind", self.staging, self.root),
            ("mount", "proc", "proc", "/proc", "nosuid,nodev,noexec"),
            ("mount", "tmpfs", "tmpfs", "/dev", "nosuid,strictatime", "mode=755", "size=64k"),
            ("mount", "devpts", "devpts", "/dev/pts", "nosuid,noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
            *(("device", f"/dev/{name}", "c", 1, minor, "666", 0, 0) for name, minor in (("null", 3), ("zero", 5))),
            ("symlink", "pts/ptmx", "/dev/ptmx"),
            *extra,
            ("pivot-root",),
        ]

    def plan(
        self,
        *command: str,
        stdio: Sequence[str] = ("pipe", "pipe", "pipe"),
        namespaces: Operation = NAMESPACES,
        mounts: Sequence[Operation] | None = None,
        extra: Sequence[Operation] = (),
        before: Sequence[Operation] = (),
        late: Sequence[Operation] = (),
        env: Sequence[str] = ("PATH=/bin",),
    ) -> list[Operation]:
        """A whole container: ``before`` comes first, ``late`` right before the command."""
        return [
            *before,
            ("stdio", *stdio),
            namespaces,
            *(self.mounts(extra=extra) if mounts is None else mounts),
            ("cwd", "/"),
            ("parent-death-signal", 9),
            *late,
            ("env", *env),
            ("exec", command[0], *command),
        ]

    def run(self, *command: str, **how: object) -> tuple[dict[str, int], str]:
        """A container to its end: the numbers of its exit, and what it printed (stdout, then stderr)."""
        late = [*how.pop("late", ()), ("await-start", "client")]  # type: ignore[misc]
        started = launch(self.plan(*command, late=late, **how))  # type: ignore[arg-type]
        started.send("A", b"\6")
        started.send("S")
        try:
            data = started.until("xf")
            assert data[:1] == b"x", data
            return parse_exit(data[1:].decode()), (started.output() + started.output(b"e")).decode()
        finally:
            started.close()

    def fails(self, *command: str, **how: object) -> Fault:
        """A container that does not start; no launcher, child or mount is left."""
        started = launch(self.plan(*command, **how))  # type: ignore[arg-type]
        try:
            fault = started.fault()
            assert started.receive() == b""
            return fault
        finally:
            assert started.close() == 1


APPLETS = """sh cat echo ls id hostname ps true false sleep dd kill stat test grep env umask readlink mount head wc
tty stty date pwd seq mkdir touch find sync printf cut sort md5sum umount"""
