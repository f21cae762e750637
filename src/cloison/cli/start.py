"""``start``: containers that exist already."""

from __future__ import annotations

from cloison.cli import foreground, output
from cloison.cli.parser import Flag, Verb
from cloison.cli.run_flags import DETACH_KEYS
from cloison.errors import CloisonError, Conflict, InvalidArgument
from cloison.model.container import Stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.cli.call import Call
    from cloison.model.container import ContainerRecord


def start(call: Call) -> int:
    """Start each and echo its name; with ``-a`` or ``-i`` one, and stay until its end."""
    if call.switch("attach") or call.switch("interactive"):
        if len(call.words) > 1:
            raise InvalidArgument("you cannot start and attach multiple containers at once")
        return _start_attached(call, call.words[0])
    failed = 0
    for name in call.words:
        try:
            _start_detached(call, name)
        except CloisonError as error:
            output.report(error)
            failed = 1
        else:
            output.say(name)
    return failed


def _start_detached(call: Call, name: str) -> None:
    containers = call.engine.containers
    record = containers.find(name)
    if record.state.status == "running":
        return  # docker's API says 304, its command line nothing
    stdio = foreground.detached_stdio(tty=record.spec.tty, interactive=record.spec.interactive)
    containers.start(record.id, stdio=stdio).close()


def _start_attached(call: Call, name: str) -> int:
    containers = call.engine.containers
    record = containers.find(name)
    if record.state.status == "running":
        from cloison.cli.attach import attach

        return attach(call)
    if record.state.status == "paused":
        raise Conflict(f"container {record.name} is paused", hint="unpause it first")
    interactive = call.switch("interactive") and record.spec.interactive
    foreground.check_terminal(tty=record.spec.tty, interactive=interactive)
    foreground.detach_keys(call)
    # docker's rule: with a terminal the keys are the signals
    with foreground.forwarder(call, wanted=not record.spec.tty) as signals:
        session = containers.start(record.id, stdio=_stdio(record, interactive=interactive))
        signals.forward_to(foreground.to_container(call, session))
        try:
            if record.spec.tty:
                if foreground.stream_terminal(session, call, interactive=interactive, forwarded=False) is None:
                    return 0
            state = containers.finish(session)
        finally:
            session.close()
    foreground.say_why_it_ended(state, name=record.name)
    return state.exit_code


def _stdio(record: ContainerRecord, *, interactive: bool) -> Stdio:
    spec = record.spec
    if spec.tty:
        return foreground.terminal_stdio()
    keep_log = not (spec.auto_remove or spec.no_log)
    stdio = foreground.foreground_stdio(interactive=interactive, keep_log=keep_log)
    if spec.interactive and not interactive:
        return stdio.replace(stdin="pipe")  # for somebody who attaches later
    return stdio


START = Verb(
    "start", start, summary="Start one or more stopped containers", usage="[OPTIONS] CONTAINER [CONTAINER...]", least=1,
    later="checkpoint checkpoint-dir",
    flags=(
        Flag("-a, --attach", help="Attach STDOUT/STDERR and forward signals"),
        DETACH_KEYS,
        Flag("-i, --interactive", help="Attach container's STDIN"),
    ),
)  # fmt: skip
