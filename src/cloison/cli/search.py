"""``search``: images of Docker Hub, or of the registry that the term names; ``--list-tags`` as podman has it."""

from __future__ import annotations

from cloison.cli.access import access_flags, access_of
from cloison.cli.listing import matches, parse_filters, print_listing
from cloison.cli.parser import Flag, Verb
from cloison.cli.table import shorten
from cloison.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.cli.call import Call
    from cloison.registry.listing import Hit

FILTERS = ("is-automated", "is-official", "stars")
COLUMNS = {"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL"}
HEADINGS = {**COLUMNS, "IsAutomated": "AUTOMATED"}
TAG_COLUMNS = {"Name": "NAME", "Tag": "TAG"}
_DESCRIPTION_WIDTH = 45
_LIMIT, _MOST = 25, 100
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def search(call: Call) -> int:
    limit = call.number("limit")
    if limit is not None and limit < 1:
        raise InvalidArgument(f"invalid limit {limit}", why="it is not above 0")
    if call.switch("list-tags"):
        return _list_tags(call, limit or _LIMIT)
    if limit is not None and limit > _MOST:
        raise InvalidArgument(f"invalid limit {limit}", why=f"outside the range of [1, {_MOST}]")
    filters = parse_filters(call.texts("filter"), FILTERS)
    hits = call.engine.registries.search(call.words[0], limit=limit or _LIMIT, access=access_of(call))
    shown = [_row(hit, call) for hit in hits if _passes(hit, filters)]
    print_listing(call, shown, columns=COLUMNS, quiet_field="Name", headings=HEADINGS)
    return 0


def _list_tags(call: Call, limit: int) -> int:
    if call.texts("filter"):
        raise InvalidArgument("filters are not applicable to list tags result")
    name = call.words[0].removeprefix("docker://")
    tags = call.engine.registries.tags(name, access=access_of(call))
    rows = [{"Name": name, "Tag": tag} for tag in tags[:limit]]
    print_listing(call, rows, columns=TAG_COLUMNS, quiet_field="Name", headings=TAG_COLUMNS)
    return 0


def _passes(hit: Hit, filters: dict[str, list[str]]) -> bool:
    tests = {
        "is-automated": lambda wanted: hit.is_automated == _truth("is-automated", wanted),
        "is-official": lambda wanted: hit.is_official == _truth("is-official", wanted),
        "stars": lambda wanted: hit.stars >= _stars(wanted),
    }
    return matches(filters, tests)


def _truth(key: str, text: str) -> bool:
    if text not in _TRUTH:
        raise InvalidArgument(f"invalid filter '{key}={text}'", hint="true or false")
    return _TRUTH[text]


def _stars(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidArgument(f"invalid filter 'stars={text}'", hint="a whole number")
    return int(text)


def _row(hit: Hit, call: Call) -> dict[str, object]:
    description = " ".join(hit.description.split())
    as_json = call.text("format").strip() == "json"
    words = ("false", "true") if as_json else ("", "[OK]")  # docker's, for people and for programs
    return {
        "Name": hit.name,
        "Description": description if call.switch("no-trunc") else shorten(description, _DESCRIPTION_WIDTH),
        "StarCount": str(hit.stars),
        "IsOfficial": words[hit.is_official],
        "IsAutomated": words[hit.is_automated],
    }


SEARCH = Verb(
    "search", search, summary="Search Docker Hub, or another registry, for images", usage="[OPTIONS] TERM", least=1,
    most=1,
    details="REGISTRY/TERM searches that registry: by its index where it has one, else through the names in its "
    "catalog. A term alone goes to Docker Hub, or to the unqualified-search-registries of registries.conf.",
    flags=(
        *access_flags(),
        Flag("-f, --filter", "list", help=f"Filter output based on conditions provided ({', '.join(FILTERS)})"),
        Flag("--format", "string", help="Format output: table, 'table TEMPLATE', json, or a Go TEMPLATE"),
        Flag("--limit", "int", help="Max number of search results", default=str(_LIMIT)),
        Flag("--list-tags", help="List the tags of a repository"),
        Flag("--no-trunc", help="Don't truncate output"),
    ),
)  # fmt: skip
