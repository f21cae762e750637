"""Bringing images in: what comes is safe from clean-up while it has no record, and the rest of it goes afterwards."""

from __future__ import annotations

from cloison.engine import garbage
from cloison.errors import CloisonError, InvalidArgument
from cloison.images.records import ImageStore
from cloison.model.reference import parse_reference
from cloison.store.blobs import Blobs
from cloison.store.partial import was_cut_short

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from cloison.engine.publishing import LayerSource
    from cloison.images.layout import Layer, StoredImage
    from cloison.images.progress import Progress
    from cloison.model.image import Image, ImageConfig
    from cloison.model.reference import Reference
    from cloison.model.settings import Settings
    from cloison.oci.image import Platform


class Bringing:
    """While it is entered, what comes in is not garbage although no record names it; afterwards the rest of it is.

    A failure leaves nothing; only a pull (``resumable``) that the network or its user cut short leaves the blobs as
    far as they have come, so that the next one goes on there.
    """

    def __init__(self, settings: Settings, *, resumable: bool = False) -> None:
        garbage.open_store(settings)
        garbage.sweep(settings)
        self.blobs = Blobs(settings.data_root)
        # set when success leaves something to collect, too
        self.is_littered = settings.drop_layer_blobs
        self._settings = settings
        self._store = ImageStore(settings.data_root)
        self._lock = self._store.incoming()
        self._resumable = resumable
        self._brought: set[str] = set()  # ids: they are about to be used

    def __enter__(self) -> Bringing:
        return self

    def publish(
        self, stored: StoredImage, source: LayerSource | None = None, *, progress: Progress | None = None,
        repo_digests: tuple[str, ...] = (),
    ) -> Image:  # fmt: skip
        """Unpack what is missing, from ``source`` (None: the store has the layers), and make the image visible.

        Raises: as `cloison.engine.publishing.publish`.
        """
        from cloison.engine.publishing import StoredLayers, publish
        from cloison.images.progress import NoProgress

        image = publish(
            stored, source or StoredLayers(self.blobs), settings=self._settings, blobs=self.blobs, store=self._store,
            progress=progress or NoProgress(), repo_digests=repo_digests,
        )  # fmt: skip
        self._brought.add(image.id)
        return image

    def publish_layer(
        self, layer: Layer, config: ImageConfig, *, reference: Reference | None, created: str, comment: str,
        platform: Platform | None = None,
    ) -> Image:  # fmt: skip
        """An image with one layer that was made here; without a platform, of this machine's."""
        from cloison.images.layout import store_single_layer
        from cloison.oci.image import ConfigDocument, Platform

        words = platform or Platform(architecture=this_architecture(), os="linux")
        document = ConfigDocument(
            architecture=words.architecture, os=words.os, variant=words.variant, diff_ids=(layer.diff_id,),
            config=config, created=created,
        )  # fmt: skip
        stored = store_single_layer(document, layer.descriptor, blobs=self.blobs, reference=reference, comment=comment)
        return self.publish(stored)

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
        if err is None:
            if self.is_littered or self._store.wants_collection:
                garbage.collect(self._settings)
            if self._settings.keep_storage_bytes:
                from cloison.engine.pruning import enforce_budget

                enforce_budget(self._settings, spare=self._brought)
        elif not (self._resumable and was_cut_short(err)):
            try:
                garbage.collect(self._settings)
            except (CloisonError, OSError):
                pass  # what went wrong first is what people must see; the next collection makes up for it


def local_reference(text: str) -> Reference:
    """The name of an image that we make. Raises: InvalidArgument for one with a digest."""
    reference = parse_reference(text)
    if reference.digest:
        raise InvalidArgument(f"cannot name an image {text}", why="a digest follows from the content")
    return reference


def this_architecture() -> str:
    """This machine's, in Go's words: ``amd64``."""
    from cloison.registry.platforms import parse_platform

    return parse_platform("").architecture
