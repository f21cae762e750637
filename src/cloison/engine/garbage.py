"""What no record needs any more: reachable from an image or a container, or removed."""

from __future__ import annotations

from cloison.errors import CloisonError
from cloison.oci.image import Manifest, parse_manifest
from cloison.snapshots.overlay import Overlay
from cloison.store.blobs import Blobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.images.records import ImageStore
    from cloison.model.image import Image
    from cloison.model.settings import Settings
    from cloison.store.containers import ContainerStore


def collect(settings: Settings, *, store: ImageStore, containers: ContainerStore) -> None:
    """Mark from images and containers, sweep layers and blobs; the caller keeps others from adding or removing."""
    blobs = Blobs(settings.data_root)
    snapshots = Overlay(settings.data_root)
    blobs.sweep()
    snapshots.sweep()
    images = {listing.image.id: listing.image for listing in store.list()}
    layers = {layer for image in images.values() for layer in image.layers}
    layers |= {layer for record in containers.records() for layer in record.layers}
    for layer in list(snapshots.list_layers()):
        if layer not in layers:
            snapshots.remove_layer(layer)
    needed = {digest for image in images.values() for digest in _blobs_of(image, blobs)}
    for digest in list(blobs.list()):
        if digest not in needed:
            blobs.remove(digest)


def _blobs_of(image: Image, blobs: Blobs) -> set[str]:
    """Manifest, configuration, layers, and the indexes that the image was found through."""
    digests = {image.id, image.digest, *(name.partition("@")[2] for name in image.repo_digests)}
    try:
        manifest = parse_manifest(blobs.read(image.digest))
    except CloisonError:
        return digests  # a damaged blob keeps nothing else alive
    if isinstance(manifest, Manifest):
        digests |= {layer.digest for layer in manifest.layers}
    return digests
