"""What refers to a manifest: signatures, bills of materials, attestations (distribution-spec, "Listing Referrers").

A registry without that API keeps the list under a tag, ``sha256-<hex>``, which clients write ("Referrers Tag Schema").
"""

from __future__ import annotations

from urllib.parse import quote

from cloison.errors import InvalidArgument, NotFound
from cloison.oci.image import OCI_INDEX, Index, parse_artifact, parse_manifest, render_index
from cloison.oci.strict import MAX_DOCUMENT_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloison.oci.image import Descriptor
    from cloison.registry.client import RegistryClient


def list_referrers(client: RegistryClient, digest: str, *, artifact_type: str = "") -> Sequence[Descriptor]:
    """Descriptors of what refers to ``digest``; none is no error. Raises: Denied, Unavailable, InvalidArgument."""
    resource = f"{client.endpoint.path}/referrers/{digest}"
    if artifact_type:
        resource += f"?artifactType={quote(artifact_type, safe='')}"
    session = client.session
    with session.get(resource, {"Accept": OCI_INDEX}, body_bytes=MAX_DOCUMENT_BYTES) as response:
        supported = response.status == 200
        if not supported and response.status not in (400, 404, 405):
            session.check(response, 200, missing="")
        body = response.read(MAX_DOCUMENT_BYTES) if supported else _tagged(client, digest)
    found = _descriptors(body)
    return [item for item in found if not artifact_type or item.artifact_type == artifact_type]


def note_referrer(
    client: RegistryClient, digest: str, *, body: bytes, media_type: str, put: Callable[[bytes, str], None]
) -> None:
    """Add a manifest of ours to the list under the tag. Two writers at once: the later wins, as the text admits."""
    known = list(_descriptors(_tagged(client, digest)))
    new = parse_artifact(body, media_type=media_type)
    if all(item.digest != new.digest for item in known):
        put(render_index(Index(manifests=(*known, new))), digest.replace(":", "-"))


def _tagged(client: RegistryClient, digest: str) -> bytes:
    """The list under the tag; b"" without one."""
    reference = client.reference.replace(tag=digest.replace(":", "-"), digest="")
    try:
        return client.manifest(reference).body
    except NotFound:
        return b""


def _descriptors(body: bytes) -> Sequence[Descriptor]:
    if not body:
        return ()
    index = parse_manifest(body)
    if not isinstance(index, Index):
        raise InvalidArgument("the list of referrers is no image index")
    return index.manifests
