"""What a registry holds: tags of a repository, repositories; page by page (distribution-spec, "Listing Tags")."""

from __future__ import annotations

from cloison.errors import Unavailable
from cloison.oci.strict import MAX_DOCUMENT_BYTES, parse_document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloison.registry.client import RegistryClient
    from cloison.registry.session import Session

_PAGE = 1000
_MAX_PAGES = 10_000


def list_tags(client: RegistryClient) -> Iterator[str]:
    """Raises: NotFound, Denied, Unavailable, InvalidArgument."""
    path = client.endpoint.path
    missing = f"repository {path} not found on registry {client.session.name}"
    yield from _pages(client.session, f"{path}/tags/list?n={_PAGE}", "tags", missing=missing)


def list_repositories(session: Session) -> Iterator[str]:
    """Raises: NotFound where a registry keeps no catalog, Denied, Unavailable, InvalidArgument."""
    missing = f"registry {session.name} has no catalog"
    yield from _pages(session, f"_catalog?n={_PAGE}", "repositories", missing=missing)


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
