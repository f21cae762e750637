"""Verbs that change the images there are: ``rmi tag load import`` and ``image from-host``."""

from __future__ import annotations

import os

from cloison.cli import output
from cloison.cli.parser import Flag, Verb
from cloison.cli.terminal import is_terminal
from cloison.errors import CloisonError, InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from cloison.cli.call import Call


def remove(call: Call) -> int:
    """One after the other, for removing one name may decide what another still means.

    With ``--force`` one that is not there is said, but no failure.
    """
    failed = 0
    for name in call.words:
        try:
            lines = call.engine.images.remove([name], force=call.switch("force"))
        except CloisonError as error:
            output.report(error)
            if not (call.switch("force") and isinstance(error, NotFound)):
                failed = 1
        else:
            for line in lines:
                output.say(line)
    return failed


def tag(call: Call) -> int:
    call.engine.images.tag(call.words[0], call.words[1])
    return 0


def untag(call: Call) -> int:
    """The image itself stays."""
    call.engine.images.untag(call.words[0], call.words[1:])
    return 0


def load(call: Call) -> int:
    path = call.text("input")
    if not path and is_terminal(output.STDIN):
        raise InvalidArgument(
            "requested load from stdin, but stdin is empty", hint="name the archive: cloison load -i FILE"
        )
    with _open(path or "-") as stream:
        names = call.engine.images.load(stream)
    for name in names:
        output.say(f"Loaded image ID: {name}" if name.startswith("sha256:") else f"Loaded image: {name}")
    return 0


def import_rootfs(call: Call) -> int:
    """A root file system, a tar archive or a directory, as an image of one layer; prints its id."""
    source = call.words[0]
    if source.startswith(("http://", "https://")):
        raise InvalidArgument("importing from a URL is not supported", hint=f"curl -fL {source} | cloison import -")
    reference = call.words[1] if len(call.words) > 1 else ""
    changes, message = tuple(call.texts("change")), call.text("message")
    bring = call.engine.images.import_rootfs
    if os.path.isdir(source):
        image = bring(source, reference, changes=changes, message=message)
    else:
        with _open(source) as stream:
            image = bring(stream, reference, changes=changes, message=message)
    output.say(image.id)
    return 0


def from_host(call: Call) -> int:
    """An image of this machine's own programs; prints its id."""
    image = call.engine.images.from_host(call.words[0], call.words[1:])
    output.say(image.id)
    return 0


def _open(path: str) -> BinaryIO:
    """A file, or standard input for ``-``. Raises: InvalidArgument."""
    try:
        return open(output.STDIN if path == "-" else path, "rb", closefd=path != "-")
    except OSError as err:
        raise InvalidArgument(f"open {path}", why=(err.strerror or str(err)).lower()) from err


REMOVE = Verb(
    "rmi", remove, summary="Remove one or more images", usage="[OPTIONS] IMAGE [IMAGE...]", least=1,
    flags=(Flag("-f, --force", help="Force removal of the image"),), later="no-prune platform",
)  # fmt: skip
TAG = Verb(
    "tag", tag, summary="Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", least=2, most=2,
    usage="SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
)  # fmt: skip
UNTAG = Verb(
    "untag", untag, summary="Take names of an image away, all of them unless some are given", least=1,
    usage="IMAGE [NAME...]", details="The image itself stays, without a name after its last.",
)  # fmt: skip
LOAD = Verb(
    "load", load, summary="Load an image from a tar archive or STDIN", usage="[OPTIONS]", most=0, later="platform",
    flags=(
        Flag("-i, --input", "string", help="Read from tar archive file, instead of STDIN"),
        Flag("-q, --quiet", help="Suppress the load output (there is no progress to suppress)"),
    ),
)  # fmt: skip
IMPORT = Verb(
    "import", import_rootfs, summary="Import the contents from a tarball or a directory to create a filesystem image",
    usage="[OPTIONS] FILE|DIRECTORY|- [REPOSITORY[:TAG]]", least=1, most=2, later="platform",
    flags=(
        Flag("-c, --change", "list", help="Apply Dockerfile instruction to the created image"),
        Flag("-m, --message", "string", help="Set commit message for imported image"),
    ),
)  # fmt: skip
FROM_HOST = Verb(
    "image from-host", from_host, summary="Make an image of programs of this machine", least=2,
    usage="NAME COMMAND [COMMAND...]",
    details="Each command comes with its interpreter, shared libraries and symbolic links, beside a minimal /etc, "
    "certificates and time zones. No network is needed.",
)  # fmt: skip
