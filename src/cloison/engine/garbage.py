"""What no record needs any more: reachable from an image or a container, or removed."""

from __future__ import annotations

import time

from cloison.errors import CloisonError
from cloison.images.records import ImageStore
from cloison.images.removal import ImageUse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.images.removal import Removal
    from cloison.model.image import Image
    from cloison.model.settings import Settings
    from cloison.store.blobs import Blobs
    from cloison.store.containers import ContainerStore

# how long the beginning of a blob waits for somebody to go on with it
PARTIAL_LIFE_S = 7 * 86400


def open_store(settings: Settings) -> None:
    """Make the roots; the first command of a boot removes what a power cut left without a record."""
    from cloison.engine.roots import open_roots

    if open_roots(settings):
        from cloison.engine.ending import sweep_after_boot

        sweep_after_boot(settings)
        # what a power cut left half-written has no record, because records come after the sync
        collect(settings)


def sweep(settings: Settings, *, partials: bool = False) -> None:
    """Remove what crashes left half-written; beginnings of blobs when they are old, or ``partials`` of any age."""
    from cloison.snapshots import probing
    from cloison.snapshots.drivers import open_snapshots
    from cloison.store.blobs import Blobs

    probing.sweep(settings.data_root)
    Blobs(settings.data_root).sweep(partials_before_s=float("inf") if partials else time.time() - PARTIAL_LIFE_S)
    open_snapshots(settings).sweep()


def collect(settings: Settings, *, measure: bool = False) -> int:
    """Remove layers and blobs that neither an image nor a container needs, and what crashes left unfinished.

    Gives the bytes of disk that came free, when they are to be measured. Does nothing while images are being brought,
    since their parts are not named by any record yet: whoever brings them does it then.
    """
    store = ImageStore(settings.data_root)
    nothing_comes_in = store.no_incoming()
    if nothing_comes_in is None:
        store.ask_for_collection()
        nothing_comes_in = store.no_incoming()  # the last of them may have ended before it could see that
        if nothing_comes_in is None:
            return 0
    with nothing_comes_in, store.lock():
        store.forget_collection()
        return _Collection(settings, store, measure=measure).run()


class _Collection:
    """Mark from images and containers, sweep layers and blobs; nobody else adds or removes meanwhile."""

    def __init__(self, settings: Settings, store: ImageStore, *, measure: bool) -> None:
        from cloison.snapshots.drivers import open_snapshots
        from cloison.store.blobs import Blobs

        self._settings = settings
        self._store = store
        self._blobs = Blobs(settings.data_root)
        self._snapshots = open_snapshots(settings)
        self._measure = measure

    def run(self) -> int:
        from cloison.store.containers import ContainerStore

        freed = sum(self._size(path) for path in (self._blobs.incoming, self._snapshots.incoming))
        sweep(self._settings, partials=True)
        self._store.sweep()
        freed -= sum(self._size(path) for path in (self._blobs.incoming, self._snapshots.incoming))
        images = {listing.image.id: listing.image for listing in self._store.list()}
        layers = {layer for image in images.values() for layer in image.layers}
        layers |= {layer for record in ContainerStore(self._settings).records() for layer in record.layers}
        for layer in set(self._snapshots.list_layers()) - layers:
            freed += self._size(self._snapshots.layer_path(layer))
            self._snapshots.remove_layer(layer)
        needed = {digest for image in images.values() for digest in self._kept_blobs(image)}
        for digest in set(self._blobs.list()) - needed:
            freed += self._size(self._blobs.path(digest))
            self._blobs.remove(digest)
        return freed

    def _kept_blobs(self, image: Image) -> set[str]:
        """Without the layers that are unpacked, where those are to be dropped and can be fetched again."""
        digests = blobs_of(image, self._blobs)
        if not (self._settings.drop_layer_blobs and image.repo_digests):
            return digests
        from cloison.images.layout import read_manifest

        try:
            manifest, _body = read_manifest(image, self._blobs)
        except CloisonError:
            return digests
        layers = zip(manifest.layers, image.layers, strict=False)
        return digests - {layer.digest for layer, chain in layers if self._snapshots.has(chain)}

    def _size(self, path: str) -> int:
        if not self._measure:
            return 0
        from cloison.linux.trees import usage_of

        return usage_of(path)


def uses(settings: Settings) -> Sequence[ImageUse]:
    """Which images containers were made from, and which are mounted."""
    from cloison.engine.image_mounts import mounted_images
    from cloison.store.containers import ContainerStore

    containers = ContainerStore(settings)
    mounted = mounted_images(settings).items()
    return [
        *(ImageUse(container_id="", image_id=image_id, running=True, mounted=path) for image_id, path in mounted),
        *_container_uses(containers),
    ]


def _container_uses(containers: ContainerStore) -> Sequence[ImageUse]:
    return [
        ImageUse(container_id=record.id, image_id=record.image_id, running=containers.monitor_lives(record.id))
        for record in containers.records()
    ]


def removal_lines(removals: Sequence[Removal], *, settings: Settings) -> Sequence[str]:
    """What removals did, as docker tells it; layers that others have are not gone."""
    from cloison.snapshots.drivers import open_snapshots

    snapshots = open_snapshots(settings)
    lines: list[str] = []
    for removal in removals:
        lines += [f"Untagged: {name}" for name in removal.untagged]
        image = removal.deleted
        if image is not None:
            gone = [layer for layer in reversed(image.layers) if not snapshots.has(layer)]
            lines += [f"Deleted: {digest}" for digest in (image.id, *gone)]
    return list(dict.fromkeys(lines))


def blobs_of(image: Image, blobs: Blobs) -> set[str]:
    """Configuration, manifest, layers; the indexes that the image was found through, and their members here."""
    from cloison.oci.image import Manifest, parse_manifest

    digests = {image.id}
    todo = [image.digest, *(name.partition("@")[2] for name in image.repo_digests)]
    while todo:
        digest = todo.pop()
        if digest in digests or not blobs.has(digest):
            continue
        digests.add(digest)
        try:
            document = parse_manifest(blobs.read(digest))
        except CloisonError:
            continue  # a damaged blob keeps nothing else alive
        if isinstance(document, Manifest):
            digests |= {document.config.digest, *(layer.digest for layer in document.layers)}
        else:  # members for other platforms, where they were brought, too
            todo += [member.digest for member in document.manifests]
    return digests
