"""``ps``: the containers there are."""

from __future__ import annotations

import time

from cloison.cli.listing import has_label, matches, parse_filters, print_listing
from cloison.cli.parser import Flag, Verb
from cloison.cli.table import shorten
from cloison.errors import InvalidArgument
from cloison.model.units import SECOND_NS, render_age

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloison.cli.call import Call
    from cloison.model.container import ContainerRecord, ContainerState, PortMapping

STATUSES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
FILTERS = ("ancestor", "before", "exited", "id", "label", "name", "since", "status")
COLUMNS = {
    "ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "RunningFor": "CREATED", "Status": "STATUS",
    "Ports": "PORTS", "Names": "NAMES",
}  # fmt: skip
HEADINGS = {
    **COLUMNS, "CreatedAt": "CREATED AT", "Labels": "LABELS", "LocalVolumes": "LOCAL VOLUMES", "Mounts": "MOUNTS",
    "Networks": "NETWORKS", "Platform": "PLATFORM", "Size": "SIZE", "State": "STATE",
}  # fmt: skip


def ps(call: Call) -> int:
    filters = parse_filters(call.texts("filter"), FILTERS)
    _check_statuses(filters.get("status", ()))
    last = 1 if call.switch("latest") else call.number("last")
    everything = call.switch("all") or bool(last and last > 0) or bool(filters.get("status") or filters.get("exited"))
    records = call.engine.containers.list(all=everything)
    shown = [record for record in records if _passes(record, filters)]
    shown = _between(call, shown, filters)
    if last and last > 0:
        shown = shown[:last]
    now_ns, full = time.time_ns(), call.switch("no-trunc")
    rows = [describe(record, now_ns=now_ns, full=full) for record in shown]
    print_listing(call, rows, columns=COLUMNS, quiet_field="ID", headings=HEADINGS)
    return 0


def _check_statuses(statuses: Sequence[str]) -> None:
    for status in statuses:
        if status not in STATUSES:
            raise InvalidArgument(f"invalid filter 'status={status}'", hint=f"there are {', '.join(STATUSES)}")


def _passes(record: ContainerRecord, filters: Mapping[str, Sequence[str]]) -> bool:
    if not filters:
        return True
    labels = {**record.labels, **record.spec.labels}
    tests = {
        "id": record.id.startswith,
        "name": lambda wanted: _name_matches(record.name, wanted),
        "label": lambda wanted: has_label(labels, wanted),
        "status": lambda wanted: record.state.status == wanted,
        "exited": lambda wanted: record.state.status == "exited" and str(record.state.exit_code) == wanted,
        "ancestor": lambda wanted: _is_ancestor(record, wanted),
    }
    return matches(filters, tests)


def _name_matches(name: str, wanted: str) -> bool:
    """Docker matches a regular expression against the name with and without its slash."""
    import re

    try:
        return bool(re.search(wanted, name) or re.search(wanted, f"/{name}"))
    except re.error as err:
        raise InvalidArgument(f"invalid filter 'name={wanted}'", why=str(err)) from None


def _is_ancestor(record: ContainerRecord, wanted: str) -> bool:
    image = record.spec.image
    digest = wanted.removeprefix("sha256:")
    if wanted in (image, f"{image}:latest") or image == f"{wanted}:latest":
        return True
    return len(digest) >= 12 and record.image_id.removeprefix("sha256:").startswith(digest)


def _between(call: Call, records: list[ContainerRecord], filters: Mapping[str, Sequence[str]]) -> list[ContainerRecord]:
    """``before=X`` and ``since=X``: created earlier, later than container X."""
    find = call.engine.containers.find
    for name in filters.get("before", ()):
        limit_ns = find(name).created_ns
        records = [record for record in records if record.created_ns < limit_ns]
    for name in filters.get("since", ()):
        limit_ns = find(name).created_ns
        records = [record for record in records if record.created_ns > limit_ns]
    return records


def describe(record: ContainerRecord, *, now_ns: int, full: bool) -> dict[str, object]:
    """One row under Docker's names."""
    command = quote_command(record.argv)
    created_s = record.created_ns // SECOND_NS
    return {
        "Command": command if full else shorten_command(command),
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(created_s)),
        "ID": record.id if full else record.id[:12],
        "Image": record.spec.image,
        "Labels": ",".join(f"{key}={value}" for key, value in sorted({**record.labels, **record.spec.labels}.items())),
        "LocalVolumes": str(len(record.volumes)),
        "Mounts": ",".join(shorten(m.source or m.target, 15) for m in record.spec.mounts),
        "Names": record.name,
        "Networks": record.spec.network,
        "Platform": record.spec.platform,
        "Ports": render_ports(record.attachment.ports if record.attachment else ()),
        "RunningFor": f"{render_age((now_ns - record.created_ns) / SECOND_NS)} ago",
        "Size": "0B",
        "State": record.state.status,
        "Status": render_status(record.state, now_ns=now_ns),
    }


def quote_command(argv: Sequence[str]) -> str:
    """The words joined, in double quotes, with what is inside escaped."""
    text = " ".join(argv)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def shorten_command(quoted: str) -> str:
    """At most 20 characters inside the quotes."""
    return '"' + shorten(quoted[1:-1], 20) + '"'


def render_status(state: ContainerState, *, now_ns: int) -> str:
    """``Up 5 seconds``, ``Exited (137) 3 minutes ago``, ``Created`` (moby, container.State.String)."""
    since_start = render_age((now_ns - state.started_ns) / SECOND_NS)
    if state.status == "running":
        return f"Up {since_start}"
    if state.status == "paused":
        return f"Up {since_start} (Paused)"
    if state.status == "created" or not state.finished_ns:
        return "Created" if state.status == "created" else f"Exited ({state.exit_code})"
    if state.status == "dead":
        return "Dead"
    if state.status == "removing":
        return "Removal In Progress"
    return f"Exited ({state.exit_code}) {render_age((now_ns - state.finished_ns) / SECOND_NS)} ago"


def render_ports(ports: Sequence[PortMapping]) -> str:
    """``0.0.0.0:8080->80/tcp``; neighbours that run in parallel become a range."""
    groups: list[list[PortMapping]] = []
    for port in sorted(ports, key=lambda p: (p.protocol, p.host_address, p.container_port)):
        last = groups[-1][-1] if groups else None
        if last and _follows(last, port):
            groups[-1].append(port)
        else:
            groups.append([port])
    return ", ".join(_render_group(group) for group in groups)


def _follows(last: PortMapping, port: PortMapping) -> bool:
    step = port.container_port - last.container_port
    host_step = port.host_port - last.host_port
    return (last.protocol, last.host_address, 1) == (port.protocol, port.host_address, step) and (
        host_step == 1 or (last.host_port == port.host_port == 0)
    )


def _render_group(group: Sequence[PortMapping]) -> str:
    first, last = group[0], group[-1]
    many = len(group) > 1
    inside = f"{first.container_port}-{last.container_port}" if many else str(first.container_port)
    if not first.host_port:
        return f"{inside}/{first.protocol}"
    outside = f"{first.host_port}-{last.host_port}" if many else str(first.host_port)
    address = first.host_address or "0.0.0.0"
    shown = f"[{address}]" if ":" in address else address
    return f"{shown}:{outside}->{inside}/{first.protocol}"


PS = Verb(
    "ps", ps, summary="List containers", usage="[OPTIONS]", most=0, later="s size",
    flags=(
        Flag("-a, --all", help="Show all containers (default shows just running)"),
        Flag("-f, --filter", "list", help=f"Filter output based on conditions provided ({', '.join(FILTERS)})"),
        Flag("--format", "string", help="Format output: table, 'table TEMPLATE', json, or a Go TEMPLATE"),
        Flag("-n, --last", "int", help="Show n last created containers (includes all states)", default="-1"),
        Flag("-l, --latest", help="Show the latest created container (includes all states)"),
        Flag("--no-trunc", help="Don't truncate output"),
        Flag("-q, --quiet", help="Only display container IDs"),
    ),
)  # fmt: skip
