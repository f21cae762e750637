"""A command in the foreground: which descriptors it gets, who forwards signals, how its end becomes our exit status."""

from __future__ import annotations

import os
import stat

from cloison.cli import output
from cloison.cli.terminal import DEFAULT_DETACH_KEYS, is_terminal, parse_detach_keys, terminal_size
from cloison.errors import CloisonError, Conflict, InvalidArgument
from cloison.model.container import Stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloison.cli.call import Call
    from cloison.cli.signals import Forwarder
    from cloison.model.container import ContainerState
    from cloison.runtime.session import Message, Session

_STREAMS = ("stdin", "stdout", "stderr")


def detached_stdio(*, tty: bool, interactive: bool) -> Stdio:
    """Streams of a command that nobody watches: into the log; stdin stays open for an attach only when asked."""
    if tty:
        return Stdio(stdin="pty", stdout="pty", stderr="pty", detached=True)
    return Stdio(stdin="pipe" if interactive else "null", detached=True)


def terminal_stdio() -> Stdio:
    """A pseudo-terminal as large as the user's."""
    rows, columns = terminal_size(output.STDIN, output.STDOUT, output.STDERR)
    return Stdio(stdin="pty", stdout="pty", stderr="pty", rows=rows, columns=columns)


def foreground_stdio(*, interactive: bool, keep_log: bool, streams: tuple[str, ...] = ()) -> Stdio:
    """The caller's own descriptors where nothing needs a copy of what passes; else pipes, which the monitor relays.

    A terminal is never handed over: a program that holds it can type into it (TIOCSTI). ``streams`` limits what is
    attached (``-a``); empty is everything. Raises: InvalidArgument when a descriptor is a directory.
    """
    wanted = frozenset(streams) or frozenset(_STREAMS)
    out, relay_out = _output(output.STDOUT, attached="stdout" in wanted, keep_log=keep_log)
    err, relay_err = _output(output.STDERR, attached="stderr" in wanted, keep_log=keep_log)
    source, relay_in = "null", -1
    if interactive and "stdin" not in wanted:
        source = "pipe"
    elif interactive and _is_usable(output.STDIN):
        source, relay_in = ("pipe", 0) if is_terminal(output.STDIN) else ("fd:0", -1)
    return Stdio(
        stdin=source, stdout=out, stderr=err, relay_in=relay_in, relay_out=relay_out, relay_err=relay_err
    )  # fmt: skip


def _output(fd: int, *, attached: bool, keep_log: bool) -> tuple[str, int]:
    if not attached or not _is_usable(fd):
        return ("pipe" if keep_log else "null"), -1
    if keep_log or is_terminal(fd):
        return "pipe", fd
    return f"fd:{fd}", -1


def _is_usable(fd: int) -> bool:
    """Whether the descriptor is open. Raises: InvalidArgument for a directory: it would lead out of the container."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    if stat.S_ISDIR(mode):
        raise InvalidArgument(
            f"{_STREAMS[fd]} is a directory", why="a command inside could walk this machine through it",
            hint="redirect from a file, a pipe or /dev/null",
        )  # fmt: skip
    return True


def check_terminal(*, tty: bool, interactive: bool) -> None:
    """Raises: Conflict when a terminal is wanted for an input that is none."""
    if tty and interactive and not is_terminal(output.STDIN):
        raise Conflict("cannot attach stdin to a TTY-enabled container because stdin is not a terminal")


def detach_keys(call: Call) -> bytes:
    return parse_detach_keys(call.text("detach-keys") or DEFAULT_DETACH_KEYS)


def stream_terminal(
    session: Session, call: Call, *, interactive: bool, forwarded: bool, redraw: bool = False
) -> Message | None:
    """Give the user's terminal to the session until the command ends (its message) or the user detaches (None).

    ``forwarded``: somebody has all signals in hand; otherwise the fatal ones end us, with the terminal restored.
    ``redraw`` resizes twice, so that a program which is already running paints its screen again.
    """
    from cloison.cli.signals import SIGWINCH, Handlers, dying_cleanly
    from cloison.cli.stream import Streamer
    from cloison.cli.terminal import DetachScanner, RawTerminal

    def fit(_number: int = 0) -> None:
        rows, columns = terminal_size(output.STDIN, output.STDOUT, output.STDERR)
        if rows:
            _tolerantly(session, rows, columns)

    scanner = DetachScanner(detach_keys(call)) if interactive else None
    streamer = Streamer(session, stdin=output.STDIN if interactive else -1, scanner=scanner)
    raw = RawTerminal(output.STDIN, wanted=interactive and not call.environ.get("NORAW"))
    deaths = Handlers((), fit) if forwarded else dying_cleanly(raw.restore)
    with deaths, Handlers((SIGWINCH,), fit), raw:
        if redraw:
            rows, columns = terminal_size(output.STDIN, output.STDOUT, output.STDERR)
            if rows:
                _tolerantly(session, rows + 1, columns + 1)
        fit()
        return streamer.run()


def _tolerantly(session: Session, rows: int, columns: int) -> None:
    try:
        session.resize(rows=rows, columns=columns)
    except CloisonError:
        pass  # the command has ended; the loop is about to see it


def forwarder(call: Call, *, is_busy: Callable[[], bool] = bool, wanted: bool = True) -> Forwarder:
    """Who forwards signals in this call; nobody with ``--sig-proxy=false``, or where it is not wanted."""
    from cloison.cli.signals import SIGALRM, Forwarder

    spared = (SIGALRM,) if call.number("timeout") else ()
    wanted = wanted and call.switch("sig-proxy", default=True)
    return Forwarder(is_busy=is_busy, except_for=spared, wanted=wanted)


def to_container(call: Call, session: Session) -> Callable[[int], None]:
    """Sends a signal to the session's container."""
    return lambda number: call.engine.containers.signal(session.id, number)


def say_why_it_ended(state: ContainerState, *, name: str) -> None:
    """One line on standard error when the kernel or the clock ended the command: an exit code alone cannot tell."""
    if state.oom_killed:
        from cloison.model.units import render_binary_size

        peak = f", peak memory {render_binary_size(state.memory_peak_bytes)}" if state.memory_peak_bytes else ""
        output.complain(f"cloison: container {name} ran out of memory (OOM killed{peak})")
    elif state.reason == "timeout":
        output.complain(f"cloison: container {name} was killed at its --timeout")
    elif state.reason == "monitor-lost":
        output.complain(f"cloison: container {name} was killed together with its monitor")
