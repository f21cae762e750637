"""What no record needs any more: reachable from an image or a container, or removed."""

from __future__ import annotations

from cloison.errors import CloisonError
from cloison.images.records import ImageStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.model.image import Image
    from cloison.model.settings import Settings
    from cloison.store.blobs import Blobs


def open_store(settings: Settings) -> None:
    """Make the roots; the first command of a boot removes what a power cut left without a record."""
    from cloison.engine.roots import open_roots

    if open_roots(settings):
        from cloison.engine.ending import sweep_after_boot

        sweep_after_boot(settings)
        # what a power cut left half-written has no record, because records come after the sync
        collect(settings)


def sweep(settings: Settings) -> None:
    """Remove what crashes left half-written."""
    from cloison.snapshots.overlay import Overlay
    from cloison.store.blobs import Blobs

    Blobs(settings.data_root).sweep()
    Overlay(settings.data_root).sweep()


def collect(settings: Settings) -> bool:
    """Remove layers and blobs that neither an image nor a container needs, and what crashes left unfinished.

    Does nothing, and says so, while images are being brought: their parts are not named by any record yet.
    """
    store = ImageStore(settings.data_root)
    nothing_comes_in = store.no_incoming()
    if nothing_comes_in is None:
        return False
    with nothing_comes_in, store.lock():
        sweep(settings)
        _collect(settings, store)
    return True


def _collect(settings: Settings, store: ImageStore) -> None:
    """Mark from images and containers, sweep layers and blobs."""
    from cloison.snapshots.overlay import Overlay
    from cloison.store.blobs import Blobs
    from cloison.store.containers import ContainerStore

    blobs = Blobs(settings.data_root)
    snapshots = Overlay(settings.data_root)
    images = {listing.image.id: listing.image for listing in store.list()}
    layers = {layer for image in images.values() for layer in image.layers}
    layers |= {layer for record in ContainerStore(settings).records() for layer in record.layers}
    for layer in list(snapshots.list_layers()):
        if layer not in layers:
            snapshots.remove_layer(layer)
    needed = {digest for image in images.values() for digest in blobs_of(image, blobs)}
    for digest in list(blobs.list()):
        if digest not in needed:
            blobs.remove(digest)


def blobs_of(image: Image, blobs: Blobs) -> set[str]:
    """Manifest, configuration, layers, and the indexes that the image was found through."""
    digests = {image.id, image.digest, *(name.partition("@")[2] for name in image.repo_digests)}
    from cloison.oci.image import Manifest, parse_manifest

    try:
        manifest = parse_manifest(blobs.read(image.digest))
    except CloisonError:
        return digests  # a damaged blob keeps nothing else alive
    if isinstance(manifest, Manifest):
        digests |= {layer.digest for layer in manifest.layers}
    return digests
