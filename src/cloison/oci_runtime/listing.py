"""``list`` and ``ps``."""

from __future__ import annotations

from cloison.errors import Conflict, InvalidArgument
from cloison.linux import cgroups
from cloison.oci_runtime.containers import Containers
from cloison.oci_runtime.log import say
from cloison.oci_runtime.options import Call, Verb
from cloison.store.json import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_FORMATS = ("table", "json")


def _list(call: Call) -> int:
    form = _format(call)
    containers = Containers(call.root)
    found = containers.load_all()
    if call.switch("quiet"):
        say("".join(f"{container.id}\n" for container in found))
        return 0
    layout = cgroups.read_layout()
    rows = []
    for container in found:
        status = containers.status(container, layout=layout)
        rows.append({
            "ociVersion": container.oci_version, "id": container.id, "status": status,
            "pid": container.pid if status != "stopped" else 0, "bundle": container.bundle,
            "rootfs": container.rootfs, "created": container.created,
            "owner": "root" if container.owner == "0" else container.owner,
        })  # fmt: skip
    if form == "json":
        say(dumps(rows) + "\n")
        return 0
    columns = ("id", "pid", "status", "bundle", "created", "owner")
    say(
        render_table(
            [tuple(name.upper() for name in columns), *(tuple(str(row[name]) for name in columns) for row in rows)]
        )
    )
    return 0


def render_table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns as wide as their widest cell, and at least twelve, three blanks apart."""
    widths = [max(12, *(len(row[at]) + 3 for row in rows)) for at in range(len(rows[0]))]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def _format(call: Call) -> str:
    form = call.text("format", "table")
    if form not in _FORMATS:
        raise InvalidArgument(f"invalid format option {form[:32]!r}", hint="use table or json")
    return form


def _ps(call: Call) -> int:
    form = _format(call)
    containers = Containers(call.root)
    container = containers.load(call.id)
    if containers.status(container) == "stopped":
        raise Conflict(f"cannot list the processes of container {call.id}", why="container not running")
    pids = cgroups.pids(cgroups.read_layout(), container.cgroup) if container.cgroup else [container.pid]
    if form == "json":
        say(dumps(pids) + "\n")
        return 0
    from cloison.linux.command import run

    lines = run(["ps", *(call.words[1:] or ["-ef"])]).decode(errors="replace").splitlines()
    titles = lines[0].split()
    if "PID" not in titles:
        raise InvalidArgument("cannot list processes", why="the output of ps has no column PID")
    column, wanted = titles.index("PID"), set(map(str, pids))
    chosen = [line for line in lines[1:] if not wanted.isdisjoint(line.split()[column : column + 1])]
    say("".join(f"{line}\n" for line in (lines[0], *chosen)))
    return 0


LIST = Verb(
    "list", _list, usage="", options={"format": "text", "quiet": "switch"},
    short={"f": "format", "q": "quiet"}, least=0, most=0,
)  # fmt: skip
PS = Verb(
    "ps", _ps, usage="CONTAINER [PS OPTIONS]", options={"format": "text"}, short={"f": "format"},
    most=-1,
)  # fmt: skip
