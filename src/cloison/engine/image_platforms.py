"""What the store has of each platform of an image."""

from __future__ import annotations

from cloison.errors import CloisonError
from cloison.model.image import PlatformShare
from cloison.oci.image import Index, Manifest, Platform, parse_manifest
from cloison.registry.platforms import render_platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.model.image import Image
    from cloison.store.blobs import Blobs


def platforms_of(image: Image, *, blobs: Blobs) -> Sequence[PlatformShare]:
    """In the index's order; its attestations, which run nowhere, are left out."""
    for digest in (name.partition("@")[2] for name in image.repo_digests):
        document = _read(digest, blobs)
        if isinstance(document, Index):
            sizes = {image.digest: image.size_bytes}
            return [
                _share(item.digest, item.platform, disk=sizes.get(item.digest, 0), blobs=blobs)
                for item in document.manifests
                if item.platform is not None and item.platform.os not in ("", "unknown")
            ]
    own = Platform(os=image.os, architecture=image.architecture, variant=image.variant)
    return [_share(image.digest, own, disk=image.size_bytes, blobs=blobs)]


def _share(digest: str, platform: Platform, *, disk: int, blobs: Blobs) -> PlatformShare:
    document = _read(digest, blobs)
    descriptors = (document.config, *document.layers) if isinstance(document, Manifest) else ()
    found = {item.digest for item in descriptors if blobs.has(item.digest)}
    content = sum(map(blobs.size, (digest, *found))) if document is not None else 0
    return PlatformShare(name=render_platform(platform), digest=digest, disk_bytes=disk, content_bytes=content)


def _read(digest: str, blobs: Blobs) -> Manifest | Index | None:
    """None where it is not here, or damaged."""
    try:
        return parse_manifest(blobs.read(digest))
    except CloisonError:
        return None
