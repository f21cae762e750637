"""``attach``: the user's terminal, or descriptors, on a container that is running."""

from __future__ import annotations

from cloison.cli import foreground, output
from cloison.cli.parser import Flag, Verb
from cloison.cli.run_flags import DETACH_KEYS
from cloison.errors import Conflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.cli.call import Call
    from cloison.model.container import ContainerRecord
    from cloison.runtime.session import Message, Session


def attach(call: Call) -> int:
    """Stay until the container's end and give its exit code; 1 after the detach keys."""
    containers = call.engine.containers
    record = containers.find(call.words[0])
    check_attachable(record)
    interactive = record.spec.interactive and not call.switch("no-stdin")
    foreground.check_terminal(tty=record.spec.tty, interactive=interactive)
    foreground.detach_keys(call)
    session = containers.attach(record.id)
    try:
        end = stream(call, session, record=record, interactive=interactive)
    finally:
        session.close()
    if end is None and record.spec.tty and containers.find(record.id).state.status == "running":
        output.complain("read escape sequence")
        return 1
    if end is not None and end.exit is not None:
        return end.exit.exit_code
    return containers.wait(record.id)


def check_attachable(record: ContainerRecord) -> None:
    """Raises: Conflict in docker's words."""
    if record.state.status == "paused":
        raise Conflict("cannot attach to a paused container, unpause it first")
    if record.state.status != "running":
        raise Conflict("cannot attach to a stopped container, start it first")


def stream(call: Call, session: Session, *, record: ContainerRecord, interactive: bool) -> Message | None:
    """Both directions until the end. Signals are forwarded only where no terminal translates keys into them."""
    from cloison.cli.stream import Streamer

    session.attach(stdin=interactive, stdout=True, stderr=True)
    if record.spec.tty:
        return foreground.stream_terminal(session, call, interactive=interactive, forwarded=False, redraw=True)
    with foreground.forwarder(call) as signals:
        signals.forward_to(foreground.to_container(call, session))
        return Streamer(session, stdin=output.STDIN if interactive else -1).run()


ATTACH = Verb(
    "attach", attach, summary="Attach local standard input, output, and error streams to a running container",
    usage="[OPTIONS] CONTAINER", least=1, most=1,
    flags=(
        DETACH_KEYS,
        Flag("--no-stdin", help="Do not attach STDIN"),
        Flag("--sig-proxy", help="Proxy all received signals to the process", default="true"),
    ),
)  # fmt: skip
