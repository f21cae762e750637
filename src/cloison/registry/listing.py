"""What a registry holds: tags of a repository, repositories; page by page (distribution-spec, "Listing Tags").

And what its index finds, where it keeps one (Docker's registry API v1, "Search").
"""

from __future__ import annotations

from cloison.errors import Unavailable
from cloison.model.record import Record
from cloison.oci.strict import MAX_DOCUMENT_BYTES, parse_document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloison.oci.fields import Fields
    from cloison.registry.client import RegistryClient
    from cloison.registry.session import Session

_PAGE = 1000
_MAX_PAGES = 10_000


class Hit(Record):
    """A repository that a search has found. ``name`` is what a pull takes."""

    name: str
    description: str = ""
    stars: int = 0
    is_official: bool = False
    is_automated: bool = False


def list_tags(client: RegistryClient) -> Iterator[str]:
    """Raises: NotFound, Denied, Unavailable, InvalidArgument."""
    path = client.endpoint.path
    missing = f"repository {path} not found on registry {client.session.name}"
    yield from _pages(client.session, f"{path}/tags/list?n={_PAGE}", "tags", missing=missing)


def list_repositories(session: Session) -> Iterator[str]:
    """Raises: NotFound where a registry keeps no catalog, Denied, Unavailable, InvalidArgument."""
    missing = f"registry {session.name} has no catalog"
    yield from _pages(session, f"_catalog?n={_PAGE}", "repositories", missing=missing)


def search_index(session: Session, term: str, *, limit: int) -> Sequence[Hit]:
    """The index's own order. ``session`` is with the root ``/v1``. Raises: NotFound without an index, Denied …"""
    from urllib.parse import urlencode

    with session.get(f"search?{urlencode({'q': term, 'n': limit})}", {}, body_bytes=MAX_DOCUMENT_BYTES) as response:
        session.check(response, 200, missing=f"registry {session.name} has no index")
        fields = parse_document(response.read(MAX_DOCUMENT_BYTES), document="list of results")
    if not fields.has("results"):
        raise fields.invalid("results", "is missing")
    return fields.objects("results", _parse_hit, limit=_PAGE)[:limit]


def _parse_hit(fields: Fields) -> Hit:
    return Hit(
        name=fields.text("name"), description=fields.text("description", default=""),
        stars=fields.whole("star_count") or 0, is_official=fields.flag("is_official"),
        is_automated=fields.flag("is_automated"),
    )  # fmt: skip


def _pages(session: Session, resource: str, field: str, *, missing: str) -> Iterator[str]:
    """Each page, by the ``Link: <…>; rel="next"`` of the one before (RFC 8288)."""
    seen = {resource}
    for _page in range(_MAX_PAGES):
        with session.get(resource, {}, body_bytes=MAX_DOCUMENT_BYTES) as response:
            session.check(response, 200, missing=missing)
            yield from parse_document(response.read(MAX_DOCUMENT_BYTES), document=f"list of {field}").texts(field)
            link = response.headers.get("link", "")
        target, _, relation = link.partition(">")
        if not target.startswith("<") or "next" not in relation:
            return
        resource = session.at_home(resource, target[1:])
        if resource in seen:
            break
        seen.add(resource)
    raise Unavailable(f"registry {session.name} is refused", why="its list never ends")
