"""Images whose parts are in the blob store, on their way to a record: what `load` and its sisters hand over."""

from __future__ import annotations

import os

from cloison.archive.decompress import sniff
from cloison.model.record import Record
from cloison.model.reference import Reference
from cloison.oci.image import (
    OCI_CONFIG,
    OCI_LAYER,
    ConfigDocument,
    Descriptor,
    Manifest,
    render_config,
    render_manifest,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, ClassVar

    from cloison.store.blobs import Blobs


class StoredImage(Record):
    """One image, every part of it a verified blob."""

    manifest_digest: str
    config_digest: str
    config: bytes
    layers: tuple[Descriptor, ...]  # base first, as the manifest has them
    references: tuple[Reference, ...] = ()

    NESTED: ClassVar[Mapping[str, Any]] = {"layers": Descriptor, "references": Reference}


def store_image(
    config: bytes, layers: Sequence[str], *, blobs: Blobs, references: Sequence[Reference] = ()
) -> StoredImage:
    """Write configuration and manifest of an image whose layers (digests of blobs, base first) are in the store."""
    descriptors = tuple(describe_layer(layer, blobs=blobs) for layer in layers)
    config_digest = blobs.add_bytes(config)
    manifest = Manifest(
        config=Descriptor(media_type=OCI_CONFIG, digest=config_digest, size=len(config)), layers=descriptors
    )
    return StoredImage(
        manifest_digest=blobs.add_bytes(render_manifest(manifest)), config_digest=config_digest, config=config,
        layers=descriptors, references=tuple(references),
    )  # fmt: skip


def describe_layer(digest: str, *, blobs: Blobs) -> Descriptor:
    """A descriptor with the media type that the blob's first bytes tell."""
    fd = blobs.open(digest)
    try:
        kind = sniff(os.read(fd, 6))
        size = os.fstat(fd).st_size
    finally:
        os.close(fd)
    return Descriptor(media_type=OCI_LAYER + (f"+{kind}" if kind else ""), digest=digest, size=size)


def store_single_layer(
    document: ConfigDocument,
    layer: str,
    *,
    blobs: Blobs,
    reference: Reference | None,
    comment: str = "",
    created_by: str = "",
) -> StoredImage:
    """An image of one layer that we made ourselves."""
    config = render_config(document, comment=comment, created_by=created_by)
    return store_image(config, [layer], blobs=blobs, references=[reference] if reference else [])
