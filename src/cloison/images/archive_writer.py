"""`save`: images of the store -> one tar stream that other engines load.

A docker-archive is both: manifest.json for docker and podman, and an OCI layout for everybody else, over the same blobs
(as docker writes it since release 25). Every blob is in it once, whatever number of images share it; there is no clock
in it, so that the same images give the same bytes.
Sources: image-spec image-layout.md; docker's image specification v1.2, "Combined Image JSON + Filesystem Changeset".
"""

from __future__ import annotations

import os

from cloison.archive.headers import DIRECTORY, FILE
from cloison.archive.writer import TarWriter, new_entry
from cloison.errors import InvalidArgument
from cloison.images.layout import as_oci, read_manifest
from cloison.model.digest import split_digest
from cloison.oci.image import OCI_INDEX, OCI_MANIFEST, Manifest, render_document, render_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.archive.writer import Writable
    from cloison.model.image import Image
    from cloison.model.reference import Reference
    from cloison.store.blobs import Blobs

DOCKER_ARCHIVE, OCI_ARCHIVE = "docker-archive", "oci-archive"
FORMS = (DOCKER_ARCHIVE, OCI_ARCHIVE)


def write_archive(
    images: Sequence[tuple[Image, Sequence[Reference]]], out: Writable, *, blobs: Blobs, form: str = DOCKER_ARCHIVE
) -> None:
    """Write images, each with its names in the archive; every blob of them is in the store.

    Manifests stay as they came, byte for byte; in an oci-archive one in docker's own form becomes OCI's, and has
    another digest then.  Raises: InvalidArgument for an unknown form, NotFound for a missing blob, OSError of ``out``.
    """
    if form not in FORMS:
        raise InvalidArgument(f"unknown archive format {form!r}", hint=f"there are {' and '.join(FORMS)}")
    archive = _Archive(out, blobs=blobs)
    for image, references in images:
        archive.add(image, references, oci_alone=form == OCI_ARCHIVE)
    archive.finish(with_docker=form == DOCKER_ARCHIVE)


class _Archive:
    """The tar stream, and what its two tables of contents will say."""

    def __init__(self, out: Writable, *, blobs: Blobs) -> None:
        self._tar = TarWriter(out)
        self._blobs = blobs
        self._written: set[str] = set()
        self._index: list[dict[str, object]] = []
        self._docker: list[dict[str, object]] = []

    def add(self, image: Image, references: Sequence[Reference], *, oci_alone: bool) -> None:
        manifest, body = read_manifest(image, self._blobs)
        if oci_alone and manifest.media_type != OCI_MANIFEST:
            manifest = Manifest(config=as_oci(manifest.config), layers=tuple(map(as_oci, manifest.layers)))
            body = render_manifest(manifest)
        for descriptor in (manifest.config, *manifest.layers):
            self._add_blob(descriptor.digest)
        digest = self._add_bytes(body)
        descriptor_of = {"mediaType": manifest.media_type, "digest": digest, "size": len(body)}
        # containerd's name is the complete one, OCI's the tag alone
        names = [
            {"io.containerd.image.name": reference.canonical, "org.opencontainers.image.ref.name": reference.tag}
            for reference in references
        ]
        self._index += [{**descriptor_of, "annotations": name} for name in names] or [descriptor_of]
        self._docker.append({
            "Config": _path(manifest.config.digest),
            "RepoTags": [reference.familiar for reference in references] or None,
            "Layers": [_path(layer.digest) for layer in manifest.layers],
        })  # fmt: skip

    def finish(self, *, with_docker: bool) -> None:
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self._index}
        self._add_file("index.json", render_document(index))
        if with_docker:
            self._add_file("manifest.json", render_document(self._docker))
        self._add_file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        self._tar.finish()

    def _add_blob(self, digest: str) -> None:
        if not self._is_new(digest):
            return
        fd = self._blobs.open(digest)
        try:
            size = os.fstat(fd).st_size
            self._tar.add(new_entry(_path(digest).encode(), FILE, mode=0o644, size=size), fd=fd)
        finally:
            os.close(fd)

    def _add_bytes(self, body: bytes) -> str:
        import hashlib

        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        if self._is_new(digest):
            self._add_file(_path(digest), body)
        return digest

    def _is_new(self, digest: str) -> bool:
        if digest in self._written:
            return False
        algorithm = split_digest(digest)[0]
        for directory in ("blobs/", f"blobs/{algorithm}/"):
            if directory not in self._written:
                self._tar.add(new_entry(directory.encode(), DIRECTORY, mode=0o755))
                self._written.add(directory)
        self._written.add(digest)
        return True

    def _add_file(self, name: str, data: bytes) -> None:
        self._tar.add(new_entry(name.encode(), FILE, mode=0o644), data=data)


def _path(digest: str) -> str:
    return "blobs/" + "/".join(split_digest(digest))
