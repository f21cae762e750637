"""How a command ended: the exit file, parsed (docs/launch-plan.md, "The exit file")."""

from __future__ import annotations

import os

from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Exit(Record):
    """One command's end; times are CLOCK_REALTIME, 0 when it never executed."""

    exit_code: int  # 128 + n when signal n killed it
    signal: int = 0
    started_ns: int = 0
    finished_ns: int = 0
    user_us: int = 0
    system_us: int = 0
    max_rss_kib: int = 0
    stats: Mapping[str, int] = {}  # what the plan's ``exit-stat`` operations asked for


_TIMES = ("started_ns", "finished_ns", "user_us", "system_us", "max_rss_kib")


def parse_exit(text: str) -> Exit:
    """The text of an exit file, or of message ``x``. Raises: ValueError when it is none: a crash left half of it."""
    values: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        values[key] = int(value)
    if "status" not in values:
        raise ValueError("an exit file has no status")
    status = values.pop("status")
    signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    times = {key: values.pop(key, 0) for key in _TIMES}
    code = 128 + signal if signal else os.waitstatus_to_exitcode(status)
    return Exit(exit_code=code, signal=signal, stats=values, **times)
