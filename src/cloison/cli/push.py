"""``pull`` and ``push``."""

from __future__ import annotations

import sys

from cloison.cli import output
from cloison.cli.access import access_flags, access_of, platform_flags, platform_of
from cloison.cli.outfile import write_text
from cloison.cli.parser import Flag, Verb
from cloison.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.cli.call import Call

_SHARED = (
    *access_flags(),
    Flag("--disable-content-trust", help="Skip image verification", hidden=True),
    Flag("-q, --quiet", help="Suppress verbose output"),
)


def pull(call: Call) -> int:
    """Progress and, at last, the full name, all on standard output."""
    from cloison.cli.progress import progress_on

    access = access_of(call)
    platform = platform_of(call) or call.environ.get("DOCKER_DEFAULT_PLATFORM", "")
    every = call.switch("all-platforms")
    images = call.engine.images
    name = call.words[0].removeprefix("docker://")
    with progress_on(sys.stdout, environ=call.environ, quiet=call.switch("quiet")) as progress:
        if call.switch("all-tags"):
            names = _all_names(call, name)
        else:
            if ":" not in name.rpartition("/")[2] and "@" not in name:
                progress.message("Using default tag: latest")
            names = [name]
        for one in names:
            images.pull(one, platform=platform, every_platform=every, access=access, progress=progress)
    for one in names:
        output.say(images.full_name(one))
    return 0


def _all_names(call: Call, name: str) -> list[str]:
    if ":" in name.rpartition("/")[2] or "@" in name:
        raise InvalidArgument("tag can't be used with --all-tags/-a")
    return [f"{name}:{tag}" for tag in call.engine.registries.tags(name, access=access_of(call))]


def push(call: Call) -> int:
    """Progress on standard output; with ``--quiet`` the full name alone, as docker does."""
    from cloison.cli.progress import progress_on
    from cloison.model.reference import parse_reference

    access = access_of(call)
    name = call.words[0]
    target = call.words[1].removeprefix("docker://") if len(call.words) > 1 else ""
    platform = call.text("platform")
    images = call.engine.images
    if call.switch("all-tags") and (target or platform or call.given("format")):
        raise InvalidArgument("a target, a platform or a format can't be used with --all-tags/-a")
    with progress_on(sys.stdout, environ=call.environ, quiet=call.switch("quiet")) as progress:
        if call.switch("all-tags"):
            digests = images.push_tags(name, access=access, progress=progress)
        else:
            if not target and ":" not in name.rpartition("/")[2] and "@" not in name:
                progress.message("Using default tag: latest")
            digests = [
                images.push(
                    name, target=target, platform=platform, form=call.text("format"), access=access, progress=progress
                )
            ]
    if path := call.text("digestfile"):
        write_text(path, "\n".join(digests))
    if call.switch("quiet"):
        output.say(parse_reference(target or name).canonical)
    return 0


PULL = Verb(
    "pull", pull, summary="Download an image from a registry", usage="[OPTIONS] NAME[:TAG|@DIGEST]", least=1, most=1,
    flags=(
        *_SHARED,
        Flag("-a, --all-tags", help="Download all tagged images in the repository"),
        Flag("--all-platforms", help="Download the image for all platforms, and unpack it for one"),
        *platform_flags("Set platform if server is multi-platform capable"),
    ),
    later="decryption-key",
)  # fmt: skip
PUSH = Verb(
    "push", push, summary="Upload an image to a registry", usage="[OPTIONS] NAME[:TAG] [TARGET[:TAG]]", least=1,
    most=2,
    details="An image that was pulled for all platforms is pushed with all of them.",
    flags=(
        *_SHARED,
        Flag("-a, --all-tags", help="Push all tags of an image to the repository"),
        Flag("-f, --format", "string", help="Make the manifests oci or v2s2 (Docker's schema 2), with new digests"),
        Flag("--digestfile", "string", help="Write the digest of the pushed image to this file"),
        Flag("--platform", "string", help="Push the image for one platform alone"),
        Flag("--remove-signatures", help="Leave signatures (none are pushed)", hidden=True),
    ),
    later="compress compression-format compression-level encrypt-layer encryption-key sign-by "
    "sign-by-sigstore-private-key sign-passphrase-file",
)  # fmt: skip
