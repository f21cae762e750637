"""``images``: the images there are."""

from __future__ import annotations

import time

from cloison.cli.inspect_image import familiar_digest, split_reference
from cloison.cli.listing import has_label, matches, parse_filters, print_listing
from cloison.cli.parser import Flag, Verb
from cloison.errors import InvalidArgument
from cloison.model.units import SECOND_NS, parse_rfc3339_ns, parse_when_ns, render_age, render_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloison.cli.call import Call
    from cloison.model.image import Image, ImageListing

FILTERS = ("after", "before", "dangling", "id", "label", "reference", "since", "until")
SORTS = ("created", "id", "repository", "size", "tag")
COLUMNS = {"Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "CreatedSince": "CREATED", "Size": "SIZE"}
DIGEST_COLUMNS = {
    "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "ID": "IMAGE ID", "CreatedSince": "CREATED",
    "Size": "SIZE",
}  # fmt: skip
HEADINGS = {
    **DIGEST_COLUMNS, "CreatedAt": "CREATED AT", "Containers": "CONTAINERS", "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE", "VirtualSize": "SIZE",
}  # fmt: skip


def images(call: Call) -> int:
    filters = parse_filters(call.texts("filter"), FILTERS)
    listings = call.engine.images.list()
    now_ns = time.time_ns()
    shown = [listing for listing in listings if _passes(listing, filters, now_ns=now_ns)]
    shown = _between(call, shown, filters)
    if call.words:
        shown = [listing for listing in shown if _is_wanted(listing.reference, call.words[0])]
    shown = _sorted(shown, call.text("sort"))
    if call.switch("tree"):
        return _tree(call, shown)
    full = call.switch("no-trunc")
    every = call.switch("digests") or ".Digest" in call.text("format")
    rows = [row for listing in shown for row in describe(listing, now_ns=now_ns, full=full, every_digest=every)]
    if call.switch("quiet"):
        rows = list({str(row["ID"]): row for row in rows}.values())
    columns = DIGEST_COLUMNS if call.switch("digests") else COLUMNS
    print_listing(call, rows, columns=columns, quiet_field="ID", headings=HEADINGS)
    return 0


def _sorted(listings: list[ImageListing], key: str) -> list[ImageListing]:
    """podman's ``--sort``; without it the newest come first. Raises: InvalidArgument."""
    if key not in ("", *SORTS):
        raise InvalidArgument(f"invalid sort key {key!r}", hint=f"there are {', '.join(SORTS)}")
    if key in ("", "created"):
        return listings
    keys = {
        "id": lambda item: item.image.id,
        "repository": lambda item: split_reference(item.reference),
        "size": lambda item: item.image.size_bytes,
        "tag": lambda item: split_reference(item.reference)[::-1],
    }
    return sorted(listings, key=keys[key])


def _tree(call: Call, listings: Sequence[ImageListing]) -> int:
    from cloison.cli.image_tree import print_tree

    for flag in ("digests", "format", "no-trunc", "quiet"):
        if call.given(flag):
            raise InvalidArgument(f"--{flag} is not supported with --tree")
    print_tree(call, listings)
    return 0


def _passes(listing: ImageListing, filters: Mapping[str, Sequence[str]], *, now_ns: int) -> bool:
    if not filters:
        return True
    tests = {
        "id": lambda wanted: listing.image.id.removeprefix("sha256:").startswith(wanted.removeprefix("sha256:")),
        "dangling": lambda wanted: (not listing.reference) == _truth(wanted),
        "label": lambda wanted: has_label(listing.image.config.labels, wanted),
        "reference": lambda wanted: _matches_pattern(listing.reference, wanted),
        "until": lambda wanted: created_ns(listing.image) < _when(wanted, now_ns),
    }
    return matches(filters, tests)


def _truth(text: str) -> bool:
    if text in ("true", "1"):
        return True
    if text in ("false", "0"):
        return False
    raise InvalidArgument(f"invalid filter 'dangling={text}'", hint="true or false")


def _when(text: str, now_ns: int) -> int:
    try:
        return parse_when_ns(text, now_ns=now_ns)
    except ValueError as err:
        raise InvalidArgument(f"invalid filter 'until={text}'", why=str(err)) from None


def _between(call: Call, listings: list[ImageListing], filters: Mapping[str, Sequence[str]]) -> list[ImageListing]:
    find = call.engine.images.find
    for name in filters.get("before", ()):
        limit_ns = created_ns(find(name))
        listings = [listing for listing in listings if created_ns(listing.image) < limit_ns]
    for name in (*filters.get("since", ()), *filters.get("after", ())):
        limit_ns = created_ns(find(name))
        listings = [listing for listing in listings if created_ns(listing.image) > limit_ns]
    return listings


def _is_wanted(reference: str, wanted: str) -> bool:
    """``images debian``, ``images debian:bookworm``; patterns as with ``--filter reference``."""
    return _matches_pattern(reference, wanted)


def _matches_pattern(reference: str, wanted: str) -> bool:
    """Shell patterns against the repository, and repository:tag; no wildcard crosses a slash (as in Go)."""
    from fnmatch import fnmatchcase

    patterns = wanted.split("/")
    repository, tag = split_reference(reference)
    for text in (repository, f"{repository}:{tag}"):
        parts = text.split("/")
        if len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns)):
            return True
    return False


def created_ns(image: Image) -> int:
    """0 where the image does not say."""
    try:
        return parse_rfc3339_ns(image.created)
    except ValueError:
        return 0


def when_created(image: Image) -> str:
    """In local time, as docker writes it."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(created_ns(image) // SECOND_NS))


def _is_dated(image: Image) -> bool:
    """Reproducible images are often of 1970, which is a date; Go's zero time, of the year 1, is none."""
    try:
        return parse_rfc3339_ns(image.created) >= 0
    except ValueError:
        return False


def describe(listing: ImageListing, *, now_ns: int, full: bool, every_digest: bool = False) -> list[dict[str, object]]:
    """Rows under Docker's names: one, or one a digest that the repository has for the image."""
    image = listing.image
    repository, tag = split_reference(listing.reference)
    known = [familiar_digest(digest).split("@") for digest in image.repo_digests]
    if not listing.reference and known:  # its tag has gone to a newer image
        repository = known[0][0]
    digests = [digest for name, digest in known if name == repository] or ["<none>"]
    moment_ns = created_ns(image)
    is_dated = _is_dated(image)
    size = render_size(image.size_bytes)
    row: dict[str, object] = {
        "Containers": "N/A",
        "CreatedAt": when_created(image) if is_dated else "N/A",
        "CreatedSince": f"{render_age((now_ns - moment_ns) / SECOND_NS)} ago" if is_dated else "N/A",
        "Digest": digests[0],
        "ID": image.id if full else image.id.removeprefix("sha256:")[:12],
        "Repository": repository,
        "SharedSize": "N/A",
        "Size": size,
        "Tag": tag,
        "UniqueSize": "N/A",
        "VirtualSize": size,
    }
    return [{**row, "Digest": digest} for digest in digests] if every_digest else [row]


IMAGES = Verb(
    "images", images, summary="List images", usage="[OPTIONS] [REPOSITORY[:TAG]]", most=1, later="history",
    flags=(
        Flag("-a, --all", help="Show all images (there are no hidden ones here)"),
        Flag("--digests", help="Show digests"),
        Flag("-f, --filter", "list", help=f"Filter output based on conditions provided ({', '.join(FILTERS)})"),
        Flag("--format", "string", help="Format output: table, 'table TEMPLATE', json, or a Go TEMPLATE"),
        Flag("--no-trunc", help="Don't truncate output"),
        Flag("-n, --noheading", help="Leave the headings out"),
        Flag("-q, --quiet", help="Only show image IDs"),
        Flag("--sort", "string", help=f"Sort by {', '.join(SORTS)}", default="created"),
        Flag("--tree", help="List every image with the platforms that are here of it"),
    ),
)  # fmt: skip
