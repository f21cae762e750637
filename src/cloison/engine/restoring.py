"""Compressed layers that were dropped once they were unpacked: brought back from where they came, digest for digest."""

from __future__ import annotations

from cloison.errors import CloisonError, Unavailable
from cloison.images.layout import read_manifest
from cloison.images.progress import NoProgress
from cloison.model.reference import parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.images.progress import Progress
    from cloison.model.image import Image
    from cloison.model.settings import Access, Settings
    from cloison.store.blobs import Blobs


def restore_layers(
    image: Image, blobs: Blobs, *, settings: Settings, access: Access | None = None, progress: Progress | None = None
) -> None:
    """Bring what is missing of an image's layers; the caller keeps it from being collected.

    Raises: Unavailable when no registry that had the image gives them.
    """
    manifest, _body = read_manifest(image, blobs)
    missing = [layer for layer in manifest.layers if not blobs.has(layer.digest)]
    if not missing:
        return
    from cloison.images.pull import fetch_blobs

    why = "it came from no registry"
    for name in image.repo_digests:
        try:
            fetch_blobs(
                parse_reference(name), missing, blobs=blobs, settings=settings, access=access,
                progress=progress or NoProgress(),
            )  # fmt: skip
            return
        except CloisonError as error:
            why = str(error)
    raise Unavailable(
        f"cannot bring back {len(missing)} compressed layer{'s' if len(missing) > 1 else ''} of {image.id[7:19]}",
        why=why, hint="unset CLOISON_LAYER_BLOBS to keep them from now on",
    )  # fmt: skip
