"""Verbs that look into images, or take them out: ``save``, ``history``, ``image diff``, ``image tree``."""

from __future__ import annotations

import time

from cloison.cli import output
from cloison.cli.image_list import created_ns, when_created
from cloison.cli.listing import print_listing
from cloison.cli.parser import Flag, Verb
from cloison.cli.table import shorten
from cloison.errors import CloisonError, InvalidArgument, NotFound
from cloison.model.units import SECOND_NS, parse_rfc3339_ns, render_age, render_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.cli.call import Call
    from cloison.model.image import FileChange, HistoryEntry, Image

HISTORY_COLUMNS = {
    "ID": "IMAGE", "CreatedSince": "CREATED", "CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT",
}  # fmt: skip
MOUNT_COLUMNS = {"ID": "IMAGE ID", "Names": "NAMES", "Path": "PATH"}
_CREATED_BY_WIDTH = 45
_MISSING = "<missing>"
_DIRECTORIES = ("docker-dir", "oci-dir")


def save(call: Call) -> int:
    """Several images as one archive; one as a directory."""
    form = call.text("format") or "docker-archive"
    if call.switch("compress") and form != "docker-dir":
        raise InvalidArgument("--compress can only be set when --format is 'docker-dir'")
    if form in _DIRECTORIES:
        return _save_directory(call, form)
    from cloison.cli.outfile import archive_output

    with archive_output(call.text("output"), verb="save") as out:
        call.engine.images.save(call.words, out, form=form, platform=call.text("platform"))
    return 0


def _save_directory(call: Call, form: str) -> int:
    """podman's ``docker-dir`` is skopeo's ``dir:`` with Docker's manifest, its ``oci-dir`` an OCI layout."""
    path = call.text("output")
    if not path or len(call.words) != 1:
        raise InvalidArgument(f"--format {form} writes one image to the directory of --output")
    name = call.words[0]
    image = call.engine.images.find(name, platform=call.text("platform"))
    names = call.engine.images.references_of(image)
    target = f"dir:{path}" if form == "docker-dir" else f"oci:{path}:{names[0] if names else ''}"
    manifests = "v2s2" if form == "docker-dir" else "oci"
    call.engine.registries.copy(f"store:{image.id}", target.removesuffix(":"), form=manifests)
    return 0


def history(call: Call) -> int:
    image = call.engine.images.find(call.words[0], platform=call.text("platform"))
    entries = call.engine.images.history(image.id)
    human = call.switch("human", default=True)
    now_ns = time.time_ns()
    rows = [
        _history_row(entry, image.id if i == 0 else "", now_ns=now_ns, human=human, full=call.switch("no-trunc"))
        for i, entry in enumerate(entries)
    ]
    columns = HISTORY_COLUMNS if human else {**HISTORY_COLUMNS, "CreatedSince": "CREATED AT"}
    print_listing(call, rows, columns=columns, quiet_field="ID", headings={**columns, "CreatedAt": "CREATED AT"})
    return 0


def _history_row(entry: HistoryEntry, image_id: str, *, now_ns: int, human: bool, full: bool) -> dict[str, object]:
    try:
        moment_ns = parse_rfc3339_ns(entry.created)
    except ValueError:
        moment_ns = -1
    since = f"{render_age((now_ns - moment_ns) / SECOND_NS)} ago" if moment_ns >= 0 else "N/A"
    created_by = " ".join(entry.created_by.split())
    return {
        "ID": (image_id if full else image_id.removeprefix("sha256:")[:12]) or _MISSING,
        "CreatedSince": since if human else entry.created,
        "CreatedAt": entry.created or "N/A",
        "CreatedBy": created_by if full else shorten(created_by, _CREATED_BY_WIDTH),
        "Size": render_size(entry.size_bytes) if human else str(entry.size_bytes),
        "Comment": entry.comment,
    }


def diff(call: Call) -> int:
    """One image against another; against what is below its own last layer when it is alone."""
    changes = call.engine.images.changes(call.words[0], call.words[1] if len(call.words) > 1 else "")
    print_changes(changes, form=call.text("format"))
    return 0


def print_changes(changes: Sequence[FileChange], *, form: str = "") -> None:
    """``A /new``, ``C /changed``, ``D /deleted``; or one JSON object with three lists. Raises: InvalidArgument."""
    if form == "json":
        from cloison.cli.documents import dumps

        names = {"changed": "C", "added": "A", "deleted": "D"}
        output.say(dumps({name: [c.path for c in changes if c.kind == kind] for name, kind in names.items()}))
    elif form:
        raise InvalidArgument(f"unknown format: {form!r}", hint="json is the only one")
    elif changes:
        output.say("\n".join(f"{change.kind} {output.visible(change.path)}" for change in changes))


def tree(call: Call) -> int:
    """Layers, base first, with what each of them added, changed and deleted."""
    images = call.engine.images
    image = images.find(call.words[0])
    lines = [
        f"Image ID: {image.id.removeprefix('sha256:')[:12]}",
        f"Tags:     [{' '.join(images.references_of(image))}]",
        f"Created:  {when_created(image)}" if created_ns(image) else "Created:  N/A",
        f"Size:     {render_size(image.size_bytes)}",
        "Image Layers",
        *_layer_lines(image, images.layer_changes(image.id), _told(images.history(image.id)), call=call),
    ]
    output.say("\n".join(lines))
    return 0


def _told(history: Sequence[HistoryEntry]) -> list[str]:
    """What made each layer, base first."""
    return [" ".join(entry.created_by.split()) for entry in reversed(history) if not entry.is_empty]


def _layer_lines(image: Image, layers: Sequence[Sequence[FileChange]], told: list[str], *, call: Call) -> list[str]:
    lines: list[str] = []
    for i, (chain, size, changes) in enumerate(zip(image.layers, image.layer_sizes, layers, strict=True)):
        is_last = i == len(layers) - 1
        counts = " ".join(f"{sign}{sum(c.kind == kind for c in changes)}" for sign, kind in (("+", "A"), ("~", "C"),
                                                                                            ("-", "D")))  # fmt: skip
        made_by = output.visible(shorten(told[i] if i < len(told) else "", _CREATED_BY_WIDTH))
        head = "└── " if is_last else "├── "
        name = chain.removeprefix("sha256:")[:12]
        lines.append(f"{head}ID: {name} Size: {render_size(size):>7} Files: {counts:<16} {made_by}".rstrip())
        if call.switch("files"):
            margin = "    " if is_last else "│   "
            lines += [f"{margin}{change.kind} {output.visible(change.path)}" for change in changes]
    return lines


def mount(call: Call) -> int:
    """Prints where; without words, what is mounted."""
    images = call.engine.images
    if not call.words:
        rows = [
            {"ID": image_id if call.switch("no-trunc") else image_id[7:19], "Names": " ".join(_names(call, image_id)),
             "Path": path} for image_id, path in images.mounted().items()
        ]  # fmt: skip
        print_listing(call, rows, columns=MOUNT_COLUMNS, quiet_field="Path", headings=MOUNT_COLUMNS)
    for name in call.words:
        output.say(images.mount(name))
    return 0


def _names(call: Call, image_id: str) -> Sequence[str]:
    try:
        return call.engine.images.references_of(call.engine.images.find(image_id))
    except NotFound:
        return []


def unmount(call: Call) -> int:
    """One after the other; prints the ids of those that were mounted."""
    images = call.engine.images
    names = list(images.mounted()) if call.switch("all") else call.words
    failed = 0
    for name in names:
        try:
            output.say(images.unmount(name).id)
        except CloisonError as error:
            output.report(error)
            failed = 1
    return failed


SAVE = Verb(
    "save", save, summary="Save one or more images to a tar archive (streamed to STDOUT by default)",
    usage="[OPTIONS] IMAGE [IMAGE...]", least=1, later="uncompressed",
    flags=(
        Flag("--compress", help="Compress layers in a docker-dir (they are as they came)"),
        Flag("--format", "string", help="docker-archive (also an OCI layout), oci-archive, docker-dir or oci-dir"),
        Flag("-m, --multi-image-archive", help="Several images in one archive (always possible)", hidden=True),
        Flag("--platform", "string", help="Save only images for this platform"),
        Flag("-q, --quiet", help="Suppress the output (there is none)", hidden=True),
        Flag("-o, --output", "string", help="Write to a file, instead of STDOUT"),
    ),
)  # fmt: skip
HISTORY = Verb(
    "history", history, summary="Show the history of an image", usage="[OPTIONS] IMAGE", least=1, most=1,
    flags=(
        Flag("--format", "string", help="Format output: table, 'table TEMPLATE', json, or a Go TEMPLATE"),
        Flag("-H, --human", help="Print sizes and dates in human readable format", default="true"),
        Flag("--no-trunc", help="Don't truncate output"),
        Flag("--platform", "string", help="Show the image only if it is for this platform"),
        Flag("-q, --quiet", help="Only show image IDs"),
    ),
)  # fmt: skip
DIFF = Verb(
    "image diff", diff, summary="Show what differs between two images", usage="[OPTIONS] IMAGE [IMAGE]", least=1,
    most=2, flags=(Flag("--format", "string", help="json"),),
    details="A is added, C changed, D deleted. Between two images contents count and times do not. One image alone is "
    "compared with what is below its last layer.",
)  # fmt: skip
TREE = Verb(
    "image tree", tree, summary="Show the layers of an image, and what each of them changed", least=1, most=1,
    usage="[OPTIONS] IMAGE", flags=(Flag("--files", help="List every path"),),
)  # fmt: skip
MOUNT = Verb(
    "image mount", mount, summary="Mount images read-only, to look into them", usage="[OPTIONS] [IMAGE...]",
    flags=(
        Flag("--format", "string", help="Format output: table, 'table TEMPLATE', json, or a Go TEMPLATE"),
        Flag("--no-trunc", help="Don't truncate output"),
    ),
    details="Prints the directory of each. Without an image, lists what is mounted. A mounted image cannot be removed; "
    "a reboot ends all mounts.",
)  # fmt: skip
UNMOUNT = Verb(
    "image unmount", unmount, summary="Unmount images", usage="[OPTIONS] [IMAGE...]",
    flags=(Flag("-a, --all", help="Unmount all images"),),
)  # fmt: skip
