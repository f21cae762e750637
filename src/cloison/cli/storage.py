"""``system df`` and ``system check``: where the bytes are, and whether they are what they should be."""

from __future__ import annotations

import time

from cloison.cli import output
from cloison.cli.listing import print_listing
from cloison.cli.parser import Flag, Verb
from cloison.cli.table import render_table
from cloison.errors import InvalidArgument
from cloison.model.units import SECOND_NS, render_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.cli.call import Call
    from cloison.model.usage import Problem, StoreUsage

COLUMNS = {
    "Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE",
}  # fmt: skip


def disk_usage(call: Call) -> int:
    """The rows together are what du(1) says of the data root."""
    if call.switch("verbose") and call.text("format"):
        raise InvalidArgument("the verbose and the format options conflict")
    usage = call.engine.system.usage()
    if call.switch("verbose"):
        output.say("\n\n".join(_sections(usage)))
    else:
        print_listing(call, _rows(usage), columns=COLUMNS, quiet_field="Type", headings=COLUMNS)
    return 0


def _rows(usage: StoreUsage) -> list[dict[str, object]]:
    running = [item for item in usage.containers if item.container.state.status in ("running", "paused")]
    idle = usage.containers_bytes - sum(item.size_bytes for item in running)
    used = [volume for volume in usage.volumes if volume.containers]
    free = usage.volumes_bytes - sum(volume.size_bytes for volume in used)
    images = [image for image in usage.images if image.containers]
    return [
        _row("Images", len(usage.images), len(images), usage.images_bytes, usage.images_reclaimable_bytes),
        _row("Containers", len(usage.containers), len(running), usage.containers_bytes, idle),
        _row("Local Volumes", len(usage.volumes), len(used), usage.volumes_bytes, free),
        _row("Build Cache", 0, 0, 0, 0),
        _row("Engine", len(usage.engine), len(usage.engine), usage.engine_bytes, 0),
    ]


def _row(kind: str, *numbers: int) -> dict[str, object]:
    total, active, size, reclaimable = numbers
    percent = f" ({100 * reclaimable // size}%)" if size else ""
    return {
        "Type": kind, "TotalCount": str(total), "Active": str(active), "Size": render_size(size, precision=4),
        "Reclaimable": render_size(reclaimable, precision=4) + percent,
    }  # fmt: skip


def _sections(usage: StoreUsage) -> list[str]:
    return [
        f"Images space usage:\n\n{render_table(_image_table(usage))}",
        f"Containers space usage:\n\n{render_table(_container_table(usage))}",
        f"Local Volumes space usage:\n\n{render_table(_volume_table(usage))}",
        "Build cache usage: 0B",
        f"Engine space usage:\n\n{render_table(_engine_table(usage))}",
        f"Total: {render_size(usage.total_bytes, precision=4)}",
    ]


def _image_table(usage: StoreUsage) -> list[list[str]]:
    from cloison.cli.image_list import describe
    from cloison.model.image import ImageListing

    rows = [["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"]]
    now_ns = time.time_ns()
    for item in sorted(usage.images, key=lambda item: item.size_bytes, reverse=True):
        sizes = (item.size_bytes, item.shared_bytes, item.size_bytes - item.shared_bytes)
        for reference in item.references or ("",):
            (row,) = describe(ImageListing(reference=reference, image=item.image), now_ns=now_ns, full=False)
            words = [str(row[name]) for name in ("Repository", "Tag", "ID", "CreatedSince")]
            rows.append([*words, *map(render_size, sizes), str(item.containers)])
    return rows


def _container_table(usage: StoreUsage) -> list[list[str]]:
    from cloison.model.units import render_age

    rows = [["CONTAINER ID", "IMAGE", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"]]
    now_ns = time.time_ns()
    for item in usage.containers:
        record = item.container
        age = f"{render_age((now_ns - record.created_ns) / SECOND_NS)} ago"
        rows.append([record.id[:12], record.spec.image, str(item.volumes), render_size(item.size_bytes), age,
                     record.state.status, record.name])  # fmt: skip
    return rows


def _volume_table(usage: StoreUsage) -> list[list[str]]:
    volumes = [[volume.name, str(volume.containers), render_size(volume.size_bytes)] for volume in usage.volumes]
    return [["VOLUME NAME", "LINKS", "SIZE"], *volumes]


def _engine_table(usage: StoreUsage) -> list[list[str]]:
    return [["PATH", "SIZE"], *([path, render_size(size)] for path, size in usage.engine.items())]


def check(call: Call) -> int:
    """Exit status 1 while something is wrong."""
    repair = call.switch("repair")
    problems = []
    for problem in call.engine.system.check(repair=repair, quick=call.switch("quick")):
        problems.append(problem)
        output.say(_line(problem))
    left = [problem for problem in problems if not problem.repaired]
    if left and not repair:
        output.complain("hint: 'cloison system check --repair' mends what it can, and removes what it cannot")
    output.say(_summary(problems, left))
    return 1 if left else 0


def _line(problem: Problem) -> str:
    told = output.visible(f"{problem.thing}: {problem.what}")
    return f"{told} ({problem.repaired})" if problem.repaired else told


def _summary(problems: Sequence[Problem], left: Sequence[Problem]) -> str:
    if not problems:
        return "No problem found"
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''} found"
    return f"{count}, {len(problems) - len(left)} mended" if len(left) < len(problems) else count


DF = Verb(
    "system df", disk_usage, summary="Show disk usage", usage="[OPTIONS]", most=0,
    flags=(
        Flag("--format", "string", help="Format output: table, 'table TEMPLATE', json, or a Go TEMPLATE"),
        Flag("-v, --verbose", help="Show detailed information on space usage"),
    ),
)  # fmt: skip
CHECK = Verb(
    "system check", check, summary="Check that everything in the store is what it should be", usage="[OPTIONS]", most=0,
    flags=(
        Flag("--quick", help="Do not read blobs and layers again"),
        Flag("--repair", help="Unpack damaged layers again, remove what cannot be mended or is not needed"),
    ),
    details="Blobs are hashed, layers compared with what their blobs hold. Exit status 1 tells that something is wrong "
    "still.",
)  # fmt: skip
