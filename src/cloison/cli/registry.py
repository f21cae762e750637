"""``registry``: what a registry holds, and taking it away there."""

from __future__ import annotations

from cloison.cli import output
from cloison.cli.access import access_flags, access_of
from cloison.cli.parser import Flag, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.cli.call import Call


def tags(call: Call) -> int:
    """One tag a line, or skopeo's ``list-tags`` document."""
    name = _bare(call.words[0])
    found = call.engine.registries.tags(name, access=access_of(call))
    if call.text("format") == "json" or call.verb.name == "list-tags":
        from cloison.cli.documents import dumps_indented
        from cloison.model.reference import parse_reference

        output.say(dumps_indented({"Repository": parse_reference(name).canonical_name, "Tags": list(found)}))
    elif found:
        output.say("\n".join(found))
    return 0


def catalog(call: Call) -> int:
    """One repository a line, as the pages come."""
    for name in call.engine.registries.catalog(call.words[0], access=access_of(call)):
        output.say(output.visible(name))
    return 0


def delete(call: Call) -> int:
    """Prints the digest of what was deleted."""
    for name in call.words:
        output.say(call.engine.registries.delete(_bare(name), access=access_of(call)))
    return 0


def referrers(call: Call) -> int:
    """Digest, artifact type and media type of each."""
    from cloison.cli.documents import dumps_indented
    from cloison.cli.table import render_table
    from cloison.model.record import to_plain

    access, wanted = access_of(call), call.text("artifact-type")
    digest, found = call.engine.registries.referrers(_bare(call.words[0]), artifact_type=wanted, access=access)
    if call.text("format") == "json":
        output.say(dumps_indented({"Subject": digest, "Referrers": [to_plain(item) for item in found]}))
        return 0
    rows = [[item.digest, item.artifact_type or "<none>", str(item.size)] for item in found]
    output.say(render_table([["DIGEST", "ARTIFACT TYPE", "SIZE"], *([output.visible(x) for x in row] for row in rows)]))
    return 0


def _bare(name: str) -> str:
    return name.removeprefix("docker://")


_FORMAT = Flag("--format", "string", help="Format output: json")
TAGS = Verb(
    "registry tags", tags, summary="List the tags of a repository", usage="[OPTIONS] REPOSITORY", least=1, most=1,
    flags=(*access_flags(), _FORMAT),
)  # fmt: skip
LIST_TAGS = Verb(
    "list-tags", tags, summary="List the tags of a repository, as skopeo prints them", usage="[OPTIONS] REPOSITORY",
    least=1, most=1, flags=access_flags(),
)  # fmt: skip
CATALOG = Verb(
    "registry catalog", catalog, summary="List the repositories of a registry", usage="[OPTIONS] REGISTRY", least=1,
    most=1, flags=access_flags(),
)  # fmt: skip
DELETE = Verb(
    "registry delete", delete, summary="Delete images from a registry", usage="[OPTIONS] IMAGE [IMAGE...]", least=1,
    details="A tag stands for its image, which goes with all of its tags. The registry must allow it.",
    flags=access_flags(),
)  # fmt: skip
REFERRERS = Verb(
    "registry referrers", referrers, summary="List signatures and other artifacts that refer to an image",
    usage="[OPTIONS] IMAGE", least=1, most=1,
    flags=(*access_flags(), Flag("--artifact-type", "string", help="Only those of this type"), _FORMAT),
)  # fmt: skip
