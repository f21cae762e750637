"""``exec``: one more command in a container that is running."""

from __future__ import annotations

import os

from cloison.cli import foreground
from cloison.cli.parser import Flag, Verb
from cloison.cli.run_flags import DETACH_KEYS
from cloison.errors import Internal, InvalidArgument
from cloison.model.container import ExecSpec, Stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.cli.call import Call
    from cloison.runtime.session import Session


def execute(call: Call) -> int:
    """Run the command; gives its exit code, 0 at once with ``-d``."""
    name, *command = call.words
    tty, interactive = call.switch("tty"), call.switch("interactive")
    detached = call.switch("detach")
    spec = ExecSpec(
        command=tuple(command), env=_environment(call), workdir=call.text("workdir"), user=call.text("user"), tty=tty,
        interactive=interactive, privileged=call.switch("privileged"),
    )  # fmt: skip
    if spec.workdir and not spec.workdir.startswith("/"):
        raise InvalidArgument(f"the working directory '{spec.workdir}' is invalid, it needs to be an absolute path")
    keys_wanted = tty and interactive and not detached
    if not detached:
        foreground.check_terminal(tty=tty, interactive=interactive)
    if keys_wanted:
        foreground.detach_keys(call)
    stdio = _stdio(tty=tty, interactive=interactive, detached=detached)
    if detached:
        call.engine.containers.exec(name, spec, stdio=stdio).close()
        return 0
    with foreground.forwarder(call) as signals:
        session = call.engine.containers.exec(name, spec, stdio=stdio)
        try:
            with ProcessSignals(session.pid) as process:
                signals.forward_to(process.send)
                return _stay(call, session, spec)
        finally:
            session.close()


def _stay(call: Call, session: Session, spec: ExecSpec) -> int:
    if spec.tty and foreground.stream_terminal(session, call, interactive=spec.interactive, forwarded=True) is None:
        return 0
    return call.engine.containers.finish_exec(session)


def _stdio(*, tty: bool, interactive: bool, detached: bool) -> Stdio:
    if detached:
        # nobody reads what it writes: a command that is not logged would block on a full pipe
        streams = ("pty",) * 3 if tty else ("null",) * 3
        return Stdio(stdin=streams[0], stdout=streams[1], stderr=streams[2], detached=True)
    if tty:
        return foreground.terminal_stdio()
    return foreground.foreground_stdio(interactive=interactive, keep_log=False)


def _environment(call: Call) -> tuple[str, ...]:
    if not (call.given("env") or call.given("env-file")):
        return ()
    from cloison.cli.variables import check_variable, read_environment

    words = call.each("env", check_variable)
    found = read_environment(files=call.texts("env-file"), words=words, environ=call.environ)
    return tuple(word for word in found if "=" in word)


class ProcessSignals:
    """Forwards signals to one process through a pidfd: its number may belong to another by the time a signal comes."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._fd = -1

    def __enter__(self) -> ProcessSignals:
        try:
            self._fd = os.pidfd_open(self._pid) if self._pid > 0 else -1
        except OSError:
            self._fd = -1  # it has ended already
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def send(self, number: int) -> None:
        """Raises: CloisonError when it has ended."""
        import _signal  # type: ignore[import-not-found]

        if self._fd < 0:
            return
        try:
            _signal.pidfd_send_signal(self._fd, number)
        except OSError as err:
            raise Internal("cannot signal the command", why=os.strerror(err.errno or 0).lower()) from err


EXEC = Verb(
    "exec", execute, summary="Execute a command in a running container", usage="[OPTIONS] CONTAINER COMMAND [ARG...]",
    least=2, interspersed=False,
    flags=(
        Flag("-d, --detach", help="Detached mode: run command in the background"),
        DETACH_KEYS,
        Flag("-e, --env", "list", help="Set environment variables"),
        Flag("--env-file", "list", help="Read in a file of environment variables"),
        Flag("-i, --interactive", help="Keep STDIN open even if not attached"),
        Flag("--privileged", help="Give extended privileges to the command"),
        Flag("-t, --tty", help="Allocate a pseudo-TTY"),
        Flag("-u, --user", "string", help="Username or UID (format: <name|uid>[:<group|gid>])"),
        Flag("-w, --workdir", "string", help="Working directory inside the container"),
    ),
)  # fmt: skip
