"""``manifest``: lists of images for several platforms, made here and pushed."""

from __future__ import annotations

from cloison.cli import output
from cloison.cli.access import access_flags, access_of
from cloison.cli.outfile import write_text
from cloison.cli.parser import Flag, Verb
from cloison.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.cli.call import Call
    from cloison.model.settings import Access


def create(call: Call) -> int:
    made = call.engine.manifests.create(
        call.words[0], call.words[1:], amend=call.switch("amend"), access=_access(call)
    )  # fmt: skip
    output.say(f"Created manifest list {made.reference}")
    return 0


def add(call: Call) -> int:
    changed = call.engine.manifests.add(call.words[0], call.words[1:], changes=_changes(call), access=_access(call))
    output.say(changed.reference)
    return 0


def annotate(call: Call) -> int:
    call.engine.manifests.annotate(call.words[0], call.words[1], changes=_changes(call), access=_access(call))
    return 0


def _changes(call: Call) -> dict[str, object]:
    """What the flags say of a member. Raises: UsageError."""
    words = {"os": "os", "arch": "architecture", "variant": "variant", "os-version": "os_version"}
    changes: dict[str, object] = {field: call.text(flag) for flag, field in words.items() if call.given(flag)}
    if call.given("os-features"):
        changes["os_features"] = tuple(word for text in call.texts("os-features") for word in text.split(","))
    if call.given("annotation"):
        changes["annotations"] = dict(call.each("annotation", _annotation))
    return changes


def _annotation(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (equals and key):
        raise ValueError("expected KEY=VALUE")
    return key, value


def inspect(call: Call) -> int:
    """A list of ours, else what a registry has under the name."""
    from cloison.cli.documents import dumps_indented
    from cloison.oci.strict import parse_json

    name = call.words[-1]
    try:
        body = call.engine.manifests.find(call.words[0]).render()
        if len(call.words) == 2:
            name = call.engine.manifests.find(call.words[0]).entry(call.words[1]).source
            raise NotFound(name)
    except NotFound:
        if call.switch("verbose"):
            output.say(dumps_indented(call.engine.registries.describe(name, access=_access(call))))
            return 0
        body = call.engine.registries.document(f"docker://{name.removeprefix('docker://')}", access=_access(call))
    value = parse_json(body, document="manifest")
    assert isinstance(value, dict)
    output.say(dumps_indented(value))
    return 0


def push(call: Call) -> int:
    """Prints the digest, as docker does."""
    target = call.words[1] if len(call.words) > 1 else ""
    purge = call.switch("purge") or call.switch("rm")
    digest = call.engine.manifests.push(call.words[0], target, purge=purge, access=_access(call))
    if path := call.text("digestfile"):
        write_text(path, digest)
    if not call.switch("quiet"):
        output.say(digest)
    return 0


def remove(call: Call) -> int:
    failed = 0
    for name in call.words:
        try:
            call.engine.manifests.remove(name)
        except NotFound as error:
            output.report(error)
            failed = 1
    return failed


def drop(call: Call) -> int:
    call.engine.manifests.drop(call.words[0], call.words[1])
    return 0


def exists(call: Call) -> int:
    try:
        call.engine.manifests.find(call.words[0])
    except NotFound:
        return 1
    return 0


def _access(call: Call) -> Access:
    access = access_of(call)
    return access.replace(tls_verify=False) if call.switch("insecure") else access


_INSECURE = Flag("--insecure", help="Allow communication with an insecure registry")
_REACH = (*access_flags(), _INSECURE)
_ALL = Flag("--all", help="All images of a list (they always are)", hidden=True)
_WORDS = (
    Flag("--annotation", "list", help="Set an annotation KEY=VALUE"),
    Flag("--arch", "string", help="Set architecture"),
    Flag("--os", "string", help="Set operating system"),
    Flag("--os-features", "list", help="Set operating system feature"),
    Flag("--os-version", "string", help="Set operating system version"),
    Flag("--variant", "string", help="Set architecture variant"),
)

CREATE = Verb(
    "manifest create", create, summary="Create a local manifest list for annotating and pushing to a registry",
    usage="[OPTIONS] MANIFEST_LIST [MANIFEST...]", least=1,
    details="The manifests are images of registries; one for several platforms stands for all of them.",
    flags=(*_REACH, _ALL, Flag("-a, --amend", help="Amend an existing manifest list")),
)  # fmt: skip
ADD = Verb(
    "manifest add", add, summary="Add images to a manifest list", usage="[OPTIONS] MANIFEST_LIST IMAGE [IMAGE...]",
    least=2, flags=(*_REACH, *_WORDS, _ALL), later="features",
)  # fmt: skip
ANNOTATE = Verb(
    "manifest annotate", annotate, summary="Add additional information to a manifest of a list",
    usage="[OPTIONS] MANIFEST_LIST MANIFEST", least=2, most=2,
    flags=(*_REACH, *_WORDS), later="features",
)  # fmt: skip
INSPECT = Verb(
    "manifest inspect", inspect, summary="Display an image manifest, or manifest list",
    usage="[OPTIONS] [MANIFEST_LIST] MANIFEST", least=1, most=2,
    flags=(*_REACH, Flag("-v, --verbose", help="Output additional info including layers and platform")),
)  # fmt: skip
PUSH = Verb(
    "manifest push", push, summary="Push a manifest list, and what it lists, to a repository",
    usage="[OPTIONS] MANIFEST_LIST [DESTINATION]", least=1, most=2,
    flags=(
        *_REACH,
        _ALL,
        Flag("--digestfile", "string", help="Write the digest of the pushed list to this file"),
        Flag("-p, --purge", help="Remove the local manifest list after push"),
        Flag("-q, --quiet", help="Do not print the digest"),
        Flag("--remove-signatures", help="Leave signatures (none are pushed)", hidden=True),
        Flag("--rm", help="Remove the local manifest list after push", hidden=True),
    ),
    later="compression-format f format sign-by sign-by-sigstore-private-key sign-passphrase-file",
)  # fmt: skip
REMOVE = Verb(
    "manifest rm", remove, summary="Delete one or more manifest lists from local storage",
    usage="MANIFEST_LIST [MANIFEST_LIST...]", least=1,
)  # fmt: skip
DROP = Verb(
    "manifest remove", drop, summary="Remove an image from a manifest list", usage="MANIFEST_LIST DIGEST", least=2,
    most=2,
)  # fmt: skip
EXISTS = Verb(
    "manifest exists", exists, summary="Whether there is a manifest list: exit status 0 or 1", usage="MANIFEST_LIST",
    least=1, most=1,
)  # fmt: skip
