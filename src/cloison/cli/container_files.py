"""Verbs about the files of a container: ``diff``, ``export``, ``commit``."""

from __future__ import annotations

from cloison.cli import output
from cloison.cli.image_files import print_changes
from cloison.cli.parser import Flag, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.cli.call import Call


def diff(call: Call) -> int:
    print_changes(call.engine.containers.changes(call.words[0]), form=call.text("format"))
    return 0


def export(call: Call) -> int:
    """The container is looked up before a file is made."""
    from cloison.cli.outfile import archive_output

    record = call.engine.containers.find(call.words[0])
    with archive_output(call.text("output"), verb="export") as out:
        call.engine.containers.export(record.id, out)
    return 0


def commit(call: Call) -> int:
    """Prints the id of the new image."""
    image = call.engine.containers.commit(
        call.words[0], call.words[1] if len(call.words) > 1 else "", author=call.text("author"),
        message=call.text("message"), changes=tuple(call.texts("change")),
        pause=call.switch("pause", default=True) and not call.switch("no-pause"),
    )  # fmt: skip
    output.say(image.id)
    return 0


DIFF = Verb(
    "diff", diff, summary="Inspect changes to files or directories on a container's filesystem",
    usage="[OPTIONS] CONTAINER", least=1, most=1, flags=(Flag("--format", "string", help="json"),),
)  # fmt: skip
EXPORT = Verb(
    "export", export, summary="Export a container's filesystem as a tar archive", usage="[OPTIONS] CONTAINER", least=1,
    most=1, flags=(Flag("-o, --output", "string", help="Write to a file, instead of STDOUT"),),
)  # fmt: skip
COMMIT = Verb(
    "commit", commit, summary="Create a new image from a container's changes", least=1, most=2,
    usage="[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    flags=(
        Flag("-a, --author", "string", help='Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")'),
        Flag("-c, --change", "list", help="Apply Dockerfile instruction to the created image"),
        Flag("-m, --message", "string", help="Commit message"),
        Flag("--no-pause", help="Don't pause the container during commit"),
        Flag("-p, --pause", help="Pause the container during commit", default="true", hidden=True),
    ),
)  # fmt: skip
