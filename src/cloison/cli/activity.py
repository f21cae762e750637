"""``top``, ``stats`` and ``port``: what goes on in containers that run."""

from __future__ import annotations

import os
import time

from cloison.cli import output
from cloison.cli.listing import TABLE, print_listing
from cloison.cli.parser import Flag, Verb
from cloison.errors import InvalidArgument, NotFound
from cloison.model.units import render_binary_size, render_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.cli.call import Call
    from cloison.model.activity import ContainerStats
    from cloison.model.container import PortMapping

COLUMNS = {
    "ID": "CONTAINER ID", "Name": "NAME", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %",
    "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
}  # fmt: skip
HEADINGS = {**COLUMNS, "Container": "CONTAINER"}
_TOP_WIDTH = 20  # docker's tabwriter
_TOP_PADDING = 3
_INTERVAL_S = 1.0
_CLEAR = b"\x1b[H\x1b[J"  # home, then clear to the end of the screen


def top(call: Call) -> int:
    table = call.engine.containers.top(call.words[0], call.words[1:])
    for row in (table.titles, *table.rows):
        cells = [output.visible(cell) for cell in row]
        padded = [cell.ljust(max(_TOP_WIDTH, len(cell) + _TOP_PADDING)) for cell in cells[:-1]]
        output.say("".join([*padded, cells[-1]]))
    return 0


def stats(call: Call) -> int:
    """Two looks at the counters, ``_INTERVAL_S`` apart, make one table; then the next, unless it is to be the only."""
    names, stream = list(call.words), not call.switch("no-stream")
    clears = stream and call.text("format").strip() in ("", TABLE) and os.isatty(output.STDOUT)
    before = _look(call, names)
    while True:
        time.sleep(_INTERVAL_S)
        now, full = _look(call, names), call.switch("no-trunc")
        if clears:
            output.write_all(output.STDOUT, _CLEAR)
        rows = [describe(each, before.get(word), asked=word, full=full) for word, each in now.items()]
        print_listing(call, rows, columns=COLUMNS, quiet_field="ID", headings=HEADINGS)
        if not stream:
            return 0
        before = now


def _look(call: Call, names: Sequence[str]) -> dict[str, ContainerStats]:
    """Counters by the word that asks for them: of these containers, or of all that run."""
    containers = call.engine.containers
    if names:
        return {name: containers.stats(name) for name in names}
    found = {}
    for record in containers.list(all=call.switch("all")):
        try:
            found[record.id] = containers.stats(record.id)
        except NotFound:
            continue  # it was removed meanwhile
    return found


def describe(now: ContainerStats, before: ContainerStats | None, *, asked: str, full: bool) -> dict[str, object]:
    """One row under Docker's names; dashes for a container that does not run."""
    row: dict[str, object] = {"Container": asked, "ID": now.id if full else now.id[:12], "Name": now.name}
    if not now.read_ns:
        return row | dict.fromkeys(("CPUPerc", "MemPerc", "NetIO", "BlockIO", "PIDs"), "--") | {"MemUsage": "-- / --"}
    cpu = 0.0
    if before is not None and 0 < before.read_ns < now.read_ns:
        cpu = max(0, now.cpu_ns - before.cpu_ns) / (now.read_ns - before.read_ns) * 100
    share = now.memory_bytes / now.memory_limit_bytes * 100 if now.memory_limit_bytes else 0.0
    return row | {
        "CPUPerc": f"{cpu:.2f}%", "MemPerc": f"{share:.2f}%", "PIDs": str(now.pids),
        "MemUsage": f"{render_binary_size(now.memory_bytes)} / {render_binary_size(now.memory_limit_bytes)}",
        "NetIO": f"{render_size(now.received_bytes)} / {render_size(now.sent_bytes)}",
        "BlockIO": f"{render_size(now.read_bytes)} / {render_size(now.written_bytes)}",
    }  # fmt: skip


def port(call: Call) -> int:
    """Every published port, or where one port of the container is published."""
    record = call.engine.containers.find(call.words[0])
    ports = record.attachment.ports if record.attachment else ()
    if len(call.words) == 1:
        for each in ports:
            output.say(f"{each.container_port}/{each.protocol} -> {_address(each)}")
        return 0
    number, protocol = _port(call.words[1])
    found = [each for each in ports if (each.container_port, each.protocol) == (number, protocol)]
    if not found:
        raise NotFound(f"no public port '{number}/{protocol}' published for {call.words[0]}")
    for each in found:
        output.say(_address(each))
    return 0


def _port(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise InvalidArgument(f"invalid port {text!r}", why="it is no port number", hint="80, 80/tcp, 53/udp")
    return int(number), protocol.lower() or "tcp"


def _address(port: PortMapping) -> str:
    address = port.host_address or "0.0.0.0"
    return f"[{address}]:{port.host_port}" if ":" in address else f"{address}:{port.host_port}"


TOP = Verb(
    "top", top, summary="Display the running processes of a container", usage="CONTAINER [ps OPTIONS]", least=1,
    interspersed=False,
)  # fmt: skip
STATS = Verb(
    "stats", stats, summary="Display a live stream of container(s) resource usage statistics",
    usage="[OPTIONS] [CONTAINER...]",
    flags=(
        Flag("-a, --all", help="Show all containers (default shows just running)"),
        Flag("--format", "string", help="Format output: table, 'table TEMPLATE', json, or a Go TEMPLATE"),
        Flag("--no-stream", help="Disable streaming stats and only pull the first result"),
        Flag("--no-trunc", help="Do not truncate output"),
    ),
)  # fmt: skip
PORT = Verb(
    "port", port, summary="List port mappings or a specific mapping for the container",
    usage="CONTAINER [PRIVATE_PORT[/PROTO]]", least=1, most=2,
)  # fmt: skip
