"""``copy``: an image from one place to another, as skopeo does it; and ``inspect`` of an image that is elsewhere."""

from __future__ import annotations

import sys

from cloison.cli import output
from cloison.cli.access import access_flags, access_of, platform_of
from cloison.cli.outfile import write_text
from cloison.cli.parser import Flag, UsageError, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.cli.call import Call


def copy(call: Call) -> int:
    """Progress on standard output, as with push."""
    from cloison.cli.progress import progress_on

    choice = call.text("multi-arch", "system")
    if choice not in ("system", "all"):
        raise UsageError(f"invalid argument {choice!r} for --multi-arch: system or all")
    source, target = call.words
    with progress_on(sys.stdout, environ=call.environ, quiet=call.switch("quiet")) as progress:
        digest = call.engine.registries.copy(
            source, target, form=_form(call), platform=platform_of(call, "override-"),
            every_platform=call.switch("all") or choice == "all",
            source_access=access_of(call, "src-"), target_access=access_of(call, "dest-"),
            progress=progress,
        )  # fmt: skip
        progress.message(f"Digest: {digest}")
    if path := call.text("digestfile"):
        write_text(path, digest)
    return 0


def _form(call: Call) -> str:
    if call.text("format") and call.switch("preserve-digests"):
        raise UsageError("--format changes digests, and --preserve-digests forbids it")
    return call.text("format")


def inspect_elsewhere(call: Call) -> int:
    """One document a name: skopeo's summary, or with ``--raw`` the manifest and with ``--config`` the configuration."""
    from cloison.cli.documents import dumps, dumps_indented
    from cloison.cli.template import parse_template

    form = call.text("format").strip()
    template = parse_template(form) if form not in ("", "json") else None
    access = access_of(call)
    for name in call.words:
        if call.switch("raw") or call.switch("config"):
            body = call.engine.registries.document(name, config=call.switch("config"), access=access)
            output.write_all(output.STDOUT, body if call.switch("raw") else body + b"\n")
            continue
        shown = call.engine.registries.inspect(
            name, platform=call.text("platform"), with_tags=not call.switch("no-tags"), access=access
        )
        if template is not None:
            output.say(template.render(shown))
        else:
            output.say(dumps(shown) if form == "json" else dumps_indented(shown))
    return 0


COPY = Verb(
    "copy", copy, summary="Copy an image between registries, archives and directories, without unpacking it",
    usage="[OPTIONS] SOURCE DESTINATION", least=2, most=2,
    details="A place is docker://NAME, oci:DIRECTORY[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], "
    "dir:DIRECTORY, or, to copy from, store:NAME for an image that is here. Bytes and digests stay as they are, "
    "unless --format says otherwise.",
    flags=(
        Flag("-a, --all", help="Copy the image for all platforms"),
        *access_flags("src-"),
        *access_flags("dest-"),
        Flag("--authfile", "string", help="File of credentials for both sides, and no other"),
        Flag("--digestfile", "string", help="Write the digest of the copied image to this file"),
        Flag("-f, --format", "string", help="Make the manifests oci or v2s2 (Docker's schema 2), with new digests"),
        Flag("--multi-arch", "string", help="Which platforms to copy: system or all", default="system"),
        Flag("--override-arch", "string", help="Architecture of the image to copy"),
        Flag("--override-os", "string", help="Operating system of the image to copy"),
        Flag("--override-variant", "string", help="Variant of the image to copy"),
        Flag("--platform", "string", help="Copy the image for this platform"),
        Flag("--preserve-digests", help="Keep digests: fail where --format would change them", hidden=True),
        Flag("-q, --quiet", help="Suppress verbose output"),
        Flag("--remove-signatures", help="Leave signatures (none are copied)", hidden=True),
        Flag("--retry-times", "int", help="Tries (passing failures are always retried)", hidden=True),
    ),
    later="additional-tag decryption-key dest-compress dest-compress-format dest-compress-level dest-decompress "
    "dest-shared-blob-dir encrypt-layer encryption-key sign-by sign-by-sigstore-private-key sign-identity "
    "sign-passphrase-file src-shared-blob-dir",
)  # fmt: skip
