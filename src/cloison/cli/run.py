"""``run`` and ``create``."""

from __future__ import annotations

import os

from cloison.cli import foreground, output
from cloison.cli.container_spec import container_spec
from cloison.cli.parser import UsageError, Verb
from cloison.cli.run_flags import CREATE_FLAGS, LATER, RUN_ONLY_FLAGS
from cloison.errors import CloisonError, Conflict, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.cli.call import Call
    from cloison.cli.pull_notice import PullNotice
    from cloison.cli.signals import Alarm
    from cloison.model.container import ContainerSpec, Stdio
    from cloison.runtime.session import Session


def run(call: Call) -> int:
    """Create and start; detached: print the id, else stay until the command's end and give its exit code."""
    spec = container_spec(call)
    if call.switch("dry-run"):
        output.say(call.engine.containers.dry_run(spec).rstrip("\n"))
        return 0
    streams = attached_streams(call)
    if call.switch("detach"):
        return _run_detached(call, spec, streams)
    foreground.check_terminal(tty=spec.tty, interactive=spec.interactive and "stdin" in (streams or ("stdin",)))
    if spec.tty:
        foreground.detach_keys(call)  # bad keys are refused before anything exists
        stdio = foreground.terminal_stdio()
    else:
        keep_log = not (spec.auto_remove or spec.no_log)
        stdio = foreground.foreground_stdio(interactive=spec.interactive, keep_log=keep_log, streams=streams)
    return _run_attached(call, spec, stdio)


def create(call: Call) -> int:
    """Make a container, print its id."""
    spec = container_spec(call)
    attached_streams(call)
    with CidFile(call.text("cidfile")) as cidfile, _progress(call) as progress:
        record = call.engine.containers.create(spec, progress=progress)
        cidfile.write(record.id)
    output.say(record.id)
    return 0


def _run_detached(call: Call, spec: ContainerSpec, streams: tuple[str, ...]) -> int:
    if streams:
        raise Conflict("conflicting options: cannot specify both --attach and --detach")
    if spec.timeout_s:
        raise Unsupported("--timeout with --detach is not supported yet", hint="use 'timeout N' from coreutils inside")
    stdio = foreground.detached_stdio(tty=spec.tty, interactive=spec.interactive)
    session = _start(call, spec, stdio=stdio, progress=_progress(call))
    output.say(session.id)
    session.close()
    return 0


def _run_attached(call: Call, spec: ContainerSpec, stdio: Stdio) -> int:
    """Stay until the command's end; 0 when the user detaches before."""
    progress = _progress(call)
    expired: list[str] = []
    with foreground.forwarder(call, is_busy=progress.is_open) as signals:
        session = _start(call, spec, stdio=stdio, progress=progress)
        signals.forward_to(foreground.to_container(call, session))
        with _alarm(call, session, spec=spec, expired=expired):
            if spec.tty:
                interactive, forwarded = spec.interactive, signals.active
                end = foreground.stream_terminal(session, call, interactive=interactive, forwarded=forwarded)
                if end is None:
                    session.close()
                    return 0
            return _conclude(call, session, expired=expired)


def _start(call: Call, spec: ContainerSpec, *, stdio: Stdio, progress: PullNotice) -> Session:
    """Create and start. With ``--cidfile`` in two steps, so that the file is there before the command runs."""
    containers = call.engine.containers
    if not call.given("cidfile"):
        with progress:
            return containers.run(spec, stdio=stdio, progress=progress)
    with CidFile(call.text("cidfile")) as cidfile, progress:
        record = containers.create(spec, progress=progress)
        cidfile.write(record.id)
    try:
        return containers.start(record.id, stdio=stdio)
    except CloisonError:
        if spec.auto_remove:
            _remove_quietly(call, record.id)
        raise


def _remove_quietly(call: Call, container_id: str) -> None:
    try:
        call.engine.containers.remove(container_id, force=True, volumes=True)
    except CloisonError:
        pass  # the failed start took it away already; its own error is the one to tell


def _conclude(call: Call, session: Session, *, expired: list[str]) -> int:
    """Wait for the end, clean up, say what an exit code cannot."""
    containers = call.engine.containers
    state = containers.finish(session)
    if expired:
        state = state.replace(reason=expired[0])
    session.close()
    foreground.say_why_it_ended(state, name=call.text("name") or session.id[:12])
    return state.exit_code


def _alarm(call: Call, session: Session, *, spec: ContainerSpec, expired: list[str]) -> Alarm:
    """``--timeout``: kill everything inside when the time is over."""
    from cloison.cli.signals import Alarm

    def ring() -> None:
        expired.append("timeout")
        try:
            call.engine.containers.kill(session.id, signal="KILL")
        except CloisonError:
            pass  # it ended in the same moment

    return Alarm(spec.timeout_s, ring)


def _progress(call: Call) -> PullNotice:
    """Who tells about a pull, on standard error; ``--quiet`` silences it."""
    from cloison.cli.pull_notice import PullNotice

    return PullNotice(environ=call.environ, quiet=call.switch("quiet"))


def attached_streams(call: Call) -> tuple[str, ...]:
    """The streams of ``-a``; empty when the flag was not given. Raises: UsageError."""
    streams = tuple(stream.lower() for stream in call.texts("attach"))
    for stream in streams:
        if stream not in ("stdin", "stdout", "stderr"):
            raise UsageError(
                f'invalid argument "{stream}" for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR\n'
                f"See 'cloison {call.verb.name} --help'."
            )
    return streams


class CidFile:
    """``--cidfile``: claimed before anything is made, removed again when nothing was. An empty path does nothing."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._written = False

    def __enter__(self) -> CidFile:
        if not self._path:
            return self
        try:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            raise Conflict(
                "container ID file found, make sure the other container isn't running or delete " + self._path
            ) from None
        except OSError as err:
            raise Conflict(
                f"failed to create the container ID file {self._path}", why=os.strerror(err.errno or 0)
            ) from err
        return self

    def write(self, container_id: str) -> None:
        if self._fd >= 0:
            output.write_all(self._fd, container_id.encode())
            self._written = True

    def __exit__(self, *_exception: object) -> None:
        if self._fd < 0:
            return
        os.close(self._fd)
        if not self._written:
            os.unlink(self._path)


RUN = Verb(
    "run", run, summary="Create and run a new container from an image", usage="[OPTIONS] IMAGE [COMMAND] [ARG...]",
    flags=CREATE_FLAGS + RUN_ONLY_FLAGS, least=1, interspersed=False, failure=125, later=LATER,
)  # fmt: skip

CREATE = Verb(
    "create", create, summary="Create a new container", usage="[OPTIONS] IMAGE [COMMAND] [ARG...]", flags=CREATE_FLAGS,
    least=1, interspersed=False, failure=125, later=LATER,
)  # fmt: skip
