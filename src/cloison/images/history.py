"""What made an image's layers, as its configuration tells, with the sizes that the layers have here."""

from __future__ import annotations

from cloison.model.image import HistoryEntry
from cloison.oci.derive import parse_history

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.model.image import Image
    from cloison.store.blobs import Blobs


def image_history(image: Image, *, blobs: Blobs) -> Sequence[HistoryEntry]:
    """Newest first. Layers that the history does not tell of come as entries without words, on top.

    Raises: NotFound, Unavailable when the configuration is damaged.
    """
    sizes = list(image.layer_sizes)[::-1]
    entries = []
    for entry in parse_history(blobs.read(image.id)):
        entries.append(entry if entry.is_empty or not sizes else entry.replace(size_bytes=sizes.pop()))
    entries += [HistoryEntry(created=image.created, size_bytes=size) for size in reversed(sizes)]
    return entries[::-1]
