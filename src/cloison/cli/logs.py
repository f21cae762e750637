"""``logs``: what a container wrote, each stream to the matching descriptor."""

from __future__ import annotations

import time

from cloison.cli import output
from cloison.cli.parser import Flag, UsageError, Verb
from cloison.model.units import parse_when_ns, render_rfc3339

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.cli.call import Call


def logs(call: Call) -> int:
    now_ns = time.time_ns()
    entries = call.engine.containers.logs(
        call.words[0], tail=_tail(call.text("tail", "all")), since_ns=_when(call, "since", now_ns),
        until_ns=_when(call, "until", now_ns), follow=call.switch("follow"),
    )  # fmt: skip
    stamps = Stamps() if call.switch("timestamps") else None
    for entry in entries:
        fd = output.STDERR if entry.stream == 2 else output.STDOUT
        data = stamps.add(entry.data, stream=entry.stream, time_ns=entry.time_ns) if stamps else entry.data
        output.write_all(fd, data)
    return 0


def _when(call: Call, flag: str, now_ns: int) -> int:
    text = call.text(flag)
    if not text:
        return 0
    return call.each(flag, lambda word: parse_when_ns(word, now_ns=now_ns))[0]


def _tail(text: str) -> int | None:
    """Lines; None is all of them (``all``, or a negative number, as in docker)."""
    if text == "all":
        return None
    try:
        return int(text) if int(text) >= 0 else None
    except ValueError:
        raise UsageError(
            f'invalid argument "{text}" for "-n, --tail" flag: a number or all\nSee \'cloison logs --help\'.'
        ) from None


class Stamps:
    """Puts the time in front of every line; a line that comes in pieces gets one."""

    def __init__(self) -> None:
        self._inside: dict[int, bool] = {}

    def add(self, data: bytes, *, stream: int, time_ns: int) -> bytes:
        stamp = render_rfc3339(time_ns, fixed=True).encode() + b" "
        lines = data.split(b"\n")
        last = lines.pop()
        starts = [b"" if self._inside.get(stream) and not number else stamp for number in range(len(lines) + 1)]
        self._inside[stream] = bool(last) or (not lines and self._inside.get(stream, False))
        stamped = b"".join(start + line + b"\n" for start, line in zip(starts, lines, strict=False))
        return stamped + (starts[-1] + last if last else b"")


LOGS = Verb(
    "logs", logs, summary="Fetch the logs of a container", usage="[OPTIONS] CONTAINER", least=1, most=1,
    later="details",
    flags=(
        Flag("-f, --follow", help="Follow log output"),
        Flag("--since", "string", help="Show logs since timestamp (e.g. 2013-01-02T13:23:37Z) or relative (e.g. 42m)"),
        Flag("-n, --tail", "string", help="Number of lines to show from the end of the logs", default="all"),
        Flag("-t, --timestamps", help="Show timestamps"),
        Flag("--until", "string", help="Show logs before timestamp (e.g. 2013-01-02T13:23:37Z) or relative (e.g. 42m)"),
    ),
)  # fmt: skip
