"""``events``: figures of a container as JSON, once (``--stats``) or again and again until it ends."""

from __future__ import annotations

import time

from cloison.errors import Conflict, InvalidArgument
from cloison.linux import cgroup_stats, cgroups
from cloison.oci_runtime.containers import Containers
from cloison.oci_runtime.log import say
from cloison.oci_runtime.options import Call, Verb
from cloison.store.json import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.oci_runtime.containers import Container

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _events(call: Call) -> int:
    interval_s = _seconds(call.text("interval", "5s"))
    containers = Containers(call.root)
    container = containers.load(call.id)
    layout = cgroups.read_layout()
    if containers.status(container, layout=layout) == "stopped":
        raise Conflict(f"cannot watch container {call.id}", why="container not running")
    if not container.cgroup:
        raise Conflict(f"cannot watch container {call.id}", why="it has no control group")
    if call.switch("stats"):
        _print_stats(container, layout)
        return 0
    kills = cgroups.oom_kills(layout, container.cgroup)
    while containers.status(container, layout=layout) != "stopped":
        _print_stats(container, layout)
        time.sleep(interval_s)
        now = cgroups.oom_kills(layout, container.cgroup)
        if now > kills:
            say(dumps({"type": "oom", "id": container.id}) + "\n")
        kills = max(kills, now)
    return 0


def _print_stats(container: Container, layout: cgroups.Layout) -> None:
    data = cgroup_stats.read_stats(layout, container.cgroup)
    say(dumps({"type": "stats", "id": container.id, "data": data}) + "\n")


def _seconds(text: str) -> float:
    number = text.rstrip("hms")
    unit = text[len(number) :]
    try:
        seconds = float(number) * _UNITS[unit]
    except (ValueError, KeyError) as err:
        raise InvalidArgument(f"invalid interval {text[:32]!r}", hint="write it as 5s or 500ms") from err
    if not 0 < seconds < 1e9:
        raise InvalidArgument("duration interval must be greater than 0")
    return seconds


EVENTS = Verb("events", _events, usage="CONTAINER", options={"stats": "switch", "interval": "text"})
