"""Images whose parts are in the blob store, on their way to a record: what `load` and its sisters hand over."""

from __future__ import annotations

import os

from cloison.archive.decompress import sniff
from cloison.errors import InvalidArgument
from cloison.model.record import Record
from cloison.model.reference import Reference
from cloison.oci.image import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_NAMES,
    ConfigDocument,
    Descriptor,
    Manifest,
    parse_manifest,
    render_config,
    render_manifest,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, ClassVar

    from cloison.archive.writer import Writable
    from cloison.model.image import Image
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
    config: bytes, layers: Sequence[str | Descriptor], *, blobs: Blobs, references: Sequence[Reference] = ()
) -> StoredImage:
    """Write configuration and manifest of an image of these layers, base first: digests of blobs, or descriptors."""
    descriptors = tuple(
        describe_layer(layer, blobs=blobs) if isinstance(layer, str) else as_oci(layer) for layer in layers
    )
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


class Layer(Record):
    """A layer that was made here."""

    descriptor: Descriptor
    diff_id: str

    NESTED: ClassVar[Mapping[str, Any]] = {"descriptor": Descriptor}


def store_layer(write: Callable[[Writable], object], *, blobs: Blobs) -> Layer:
    """What ``write`` writes, a tar stream, as a compressed blob, as it is pushed later.

    Raises: what ``write`` raises; Unavailable when the disk is full.
    """
    from cloison.archive.compress import GzipWriter

    with blobs.collector() as out:
        packed = GzipWriter(out)
        write(packed)
        packed.finish()
    return Layer(descriptor=describe_layer(out.digest, blobs=blobs), diff_id=packed.plain_digest)


def read_manifest(image: Image, blobs: Blobs) -> tuple[Manifest, bytes]:
    """An image's manifest and its bytes. Raises: NotFound, Unavailable when it is damaged, InvalidArgument."""
    body = blobs.read(image.digest)
    manifest = parse_manifest(body)
    if not isinstance(manifest, Manifest):
        raise InvalidArgument(f"invalid image {image.id}", why="its manifest is an index")
    return manifest, body


def as_oci(descriptor: Descriptor) -> Descriptor:
    """The same blob under OCI's media type."""
    return descriptor.replace(media_type=OCI_NAMES.get(descriptor.media_type, descriptor.media_type))


def store_single_layer(
    document: ConfigDocument,
    layer: Descriptor,
    *,
    blobs: Blobs,
    reference: Reference | None,
    comment: str = "",
    created_by: str = "",
) -> StoredImage:
    """An image of one layer that we made ourselves."""
    config = render_config(document, comment=comment, created_by=created_by)
    return store_image(config, [layer], blobs=blobs, references=[reference] if reference else [])
