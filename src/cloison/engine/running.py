"""One command in one container, its output caught: what most programs want (`cloison.run`)."""

from __future__ import annotations

import os
import select
import time

from cloison.engine.containers import Containers
from cloison.errors import InvalidArgument
from cloison.model import units
from cloison.model.container import ContainerSpec, MountRequest, Resources, Stdio
from cloison.model.record import Record
from cloison.model.settings import Settings, settings_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloison.model.container import ContainerState
    from cloison.runtime.session import Session

_CHUNK = 1 << 16


class Result(Record):
    """How a command in a container of its own went.

    ``exit_code`` is the command's, or 128 + n when signal n ended it. ``reason`` says who ended it: "" (it did itself),
    "timeout", "oom" (out of memory), "killed", "output-limit".
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    reason: str = ""
    duration_s: float = 0.0
    memory_peak_bytes: int = 0
    cpu_s: float = 0.0


def run(
    image: str,
    command: Sequence[str] = (),
    *,
    input: bytes = b"",
    env: Mapping[str, str] | None = None,
    workdir: str = "",
    user: str = "",
    memory: str | int | None = None,
    cpus: float | None = None,
    pids: int | None = None,
    timeout: float | None = None,
    network: str = "none",
    mounts: Sequence[MountRequest] = (),
    read_only: bool = False,
    init: bool = False,
    max_output: int = 64 << 20,
    settings: Settings | None = None,
) -> Result:
    """Run ``command`` in a new container of ``image``, wait for its end, remove every trace.

    memory: bytes, or "64m"; swap is not added to it. cpus: how many CPUs' time per second. pids: processes at most.
    timeout: seconds of wall clock, after which everything inside is killed. max_output: bytes kept of each stream; a
    command that writes more is killed. network: "none" (the default here: programs run what they do not trust),
    "bridge", "host".

    Raises: CloisonError (NotFound for the image, CommandNotFound, CommandNotInvocable, InvalidArgument, Unavailable
    …). A command that fails is no error: look at ``exit_code``.
    """
    if isinstance(command, str):
        raise InvalidArgument(
            "command must be a sequence of words", why="it is one string", hint='["sh", "-c", command]'
        )
    spec = ContainerSpec(
        image=image, command=tuple(command), env=tuple(f"{k}={v}" for k, v in (env or {}).items()), workdir=workdir,
        user=user, network=network, mounts=tuple(mounts), read_only=read_only, init=init, auto_remove=True,
        interactive=bool(input), resources=_resources(memory, cpus, pids),
    )  # fmt: skip
    containers = Containers(settings or settings_for(dict(os.environ)))
    return _Capture(containers, spec, input, limit=max_output).run(timeout)


def _resources(memory: str | int | None, cpus: float | None, pids: int | None) -> Resources:
    bytes_ = units.parse_size(memory) if isinstance(memory, str) else memory
    return Resources(
        memory_bytes=bytes_,
        cpu_period_us=100_000 if cpus else None,
        cpu_quota_us=int(cpus * 100_000) if cpus else None,
        pids_limit=pids,
    )


class _Capture:
    """The caller's ends of three pipes, pumped until the command and all its descendants have let go."""

    def __init__(self, containers: Containers, spec: ContainerSpec, data: bytes, *, limit: int) -> None:
        self._containers = containers
        self._spec = spec
        self._input = memoryview(data)
        self._limit = limit
        self._kept: dict[int, bytearray] = {}
        self._stdin = -1
        self._reason = ""

    def run(self, timeout_s: float | None) -> Result:
        began = time.monotonic()
        session = self._start()
        try:
            streams = list(self._kept)
            self._pump(session, deadline=None if timeout_s is None else began + timeout_s)
            state = self._containers.finish(session, reason=self._reason)
        finally:
            session.close()
            for fd in (*self._kept, self._stdin):
                if fd >= 0:
                    os.close(fd)
        out, err = (bytes(self._kept[fd]) for fd in streams)
        return _result(state, out, err, began=began)

    def _start(self) -> Session:
        out_r, out_w = os.pipe()
        err_r, err_w = os.pipe()
        in_r, in_w = os.pipe() if self._input else (-1, -1)
        try:
            stdin = f"fd:{in_r}" if self._input else "null"
            stdio = Stdio(stdin=stdin, stdout=f"fd:{out_w}", stderr=f"fd:{err_w}")
            session = self._containers.run(self._spec, stdio=stdio)
        except BaseException:
            for fd in (out_r, err_r, in_w):
                if fd >= 0:
                    os.close(fd)
            raise
        finally:
            for fd in (out_w, err_w, in_r):
                if fd >= 0:
                    os.close(fd)
        if in_w >= 0:
            os.set_blocking(in_w, False)
        self._kept = {out_r: bytearray(), err_r: bytearray()}
        self._stdin = in_w
        return session

    def _pump(self, session: Session, *, deadline: float | None) -> None:
        poll = select.poll()
        open_fds = set(self._kept)
        for fd in open_fds:
            poll.register(fd, select.POLLIN)
        if self._stdin >= 0:
            poll.register(self._stdin, select.POLLOUT)
        while open_fds:
            left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            events = poll.poll(left_ms)
            if not events and deadline is not None and time.monotonic() >= deadline:
                self._kill(session, "timeout")
                deadline = None
            for fd, _event in events:
                if fd == self._stdin:
                    self._feed(poll)
                elif not self._read(fd, session):
                    poll.unregister(fd)
                    open_fds.discard(fd)
        self._wait(session, deadline)

    def _read(self, fd: int, session: Session) -> bool:
        piece = os.read(fd, _CHUNK)
        kept = self._kept[fd]
        kept += piece[: self._limit - len(kept)]
        if piece and len(kept) >= self._limit and not self._reason:
            self._kill(session, "output-limit")
        return bool(piece)

    def _feed(self, poll: select.poll) -> None:
        try:
            self._input = self._input[os.write(self._stdin, self._input[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._input = memoryview(b"")
        if not self._input:
            poll.unregister(self._stdin)
            os.close(self._stdin)
            self._stdin = -1

    def _wait(self, session: Session, deadline: float | None) -> None:
        """The command may have closed its output and run on."""
        if deadline is None:
            return
        poll = select.poll()
        poll.register(session.fileno(), select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            self._kill(session, "timeout")

    def _kill(self, session: Session, reason: str) -> None:
        self._reason = self._reason or reason
        self._containers.kill(session.id, signal="KILL")


def _result(state: ContainerState, out: bytes, err: bytes, *, began: float) -> Result:
    return Result(
        exit_code=state.exit_code,
        stdout=out,
        stderr=err,
        reason=state.reason,
        duration_s=time.monotonic() - began,
        memory_peak_bytes=state.memory_peak_bytes,
        cpu_s=(state.user_us + state.system_us) / 1e6,
    )
