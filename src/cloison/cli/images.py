"""Verbs that change the images there are: ``rmi tag load import`` and ``image from-host``."""

from __future__ import annotations

import os
from functools import partial

from cloison.cli import output
from cloison.cli.access import platform_flags, platform_of
from cloison.cli.parser import Flag, Verb, check_word_count
from cloison.cli.terminal import is_terminal
from cloison.errors import CloisonError, InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from cloison.cli.call import Call


def remove(call: Call) -> int:
    """One after the other, for removing one name may decide what another still means.

    With ``--force`` one that is not there is said, but no failure; with ``--ignore`` not even said.
    """
    names = call.words
    if call.switch("all"):
        if names:
            raise InvalidArgument("--all and names of images say two things")
        names = [listing.reference or listing.image.id for listing in call.engine.images.list()]
    else:
        check_word_count(call.verb, names, least=1)
    failed = 0
    for name in names:
        try:
            if platform := call.text("platform"):
                call.engine.images.find(name, platform=platform)
            lines = call.engine.images.remove([name], force=call.switch("force"))
        except CloisonError as error:
            if call.switch("ignore") and isinstance(error, NotFound):
                continue
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
    platform, bring = call.text("platform"), call.engine.images.load
    if os.path.isdir(path):
        names = bring(path, platform=platform)
    else:
        with _open(path or "-") as stream:
            names = bring(stream, platform=platform)
    for name in names:
        output.say(f"Loaded image ID: {name}" if name.startswith("sha256:") else f"Loaded image: {name}")
    return 0


def import_rootfs(call: Call) -> int:
    """A root file system, a tar archive or a directory, as an image of one layer; prints its id."""
    source = call.words[0]
    reference = call.words[1] if len(call.words) > 1 else ""
    bring = partial(
        call.engine.images.import_rootfs, reference=reference, changes=tuple(call.texts("change")),
        message=call.text("message"), platform=platform_of(call),
    )  # fmt: skip
    if source.startswith(("http://", "https://")):
        if not call.switch("quiet"):
            output.complain(f"Downloading from {source}")
        image = bring(source)
    elif os.path.isdir(source):
        image = bring(source)
    else:
        with _open(source) as stream:
            image = bring(stream)
    output.say(image.id)
    return 0


def exists(call: Call) -> int:
    """0 or 1, and no word (as podman's)."""
    try:
        call.engine.images.find(call.words[0])
    except NotFound:
        return 1
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
    "rmi", remove, summary="Remove one or more images", usage="[OPTIONS] IMAGE [IMAGE...]",
    flags=(
        Flag("-a, --all", help="Remove all images"),
        Flag("-f, --force", help="Force removal of the image"),
        Flag("-i, --ignore", help="Ignore images that do not exist"),
        Flag("--no-prune", help="Do not delete untagged parents (there are none)"),
        Flag("--platform", "string", help="Remove it only if it is for this platform"),
    ),
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
    "load", load, summary="Load an image from a tar archive or STDIN", usage="[OPTIONS]", most=0,
    flags=(
        Flag("-i, --input", "string", help="Read from tar archive file or OCI layout directory, instead of STDIN"),
        Flag("--platform", "string", help="Load only the images for this platform"),
        Flag("-q, --quiet", help="Suppress the load output (there is no progress to suppress)"),
    ),
)  # fmt: skip
IMPORT = Verb(
    "import", import_rootfs, summary="Import the contents from a tarball or a directory to create a filesystem image",
    usage="[OPTIONS] FILE|URL|DIRECTORY|- [REPOSITORY[:TAG]]", least=1, most=2,
    flags=(
        Flag("-c, --change", "list", help="Apply Dockerfile instruction to the created image"),
        Flag("-m, --message", "string", help="Set commit message for imported image"),
        *platform_flags("Set platform of the image"),
        Flag("-q, --quiet", help="Do not say what is downloaded"),
    ),
)  # fmt: skip
EXISTS = Verb(
    "image exists", exists, summary="Whether there is an image: exit status 0 or 1", usage="IMAGE", least=1, most=1,
)  # fmt: skip
FROM_HOST = Verb(
    "image from-host", from_host, summary="Make an image of programs of this machine", least=2,
    usage="NAME COMMAND [COMMAND...]",
    details="Each command comes with its interpreter, shared libraries and symbolic links, beside a minimal /etc, "
    "certificates and time zones. No network is needed.",
)  # fmt: skip
