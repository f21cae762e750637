"""Registries and the local store as places that images are copied from and to."""

from __future__ import annotations

from cloison.errors import InvalidArgument, NotFound
from cloison.images.copying import Source, Target, Verified, pieces, short, watched
from cloison.oci.image import parse_manifest
from cloison.registry.client import ManifestAnswer
from cloison.registry.upload import Uploader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloison.images.copying import Contents
    from cloison.images.mirrors import Mirrored
    from cloison.images.progress import Progress
    from cloison.model.reference import Reference
    from cloison.oci.image import Descriptor
    from cloison.registry.client import RegistryClient
    from cloison.store.blobs import Blobs


class RegistrySource(Source):
    """A reference on its registry, or on a mirror of that."""

    def __init__(self, reference: Reference, client: Mirrored) -> None:
        self.reference = reference
        self.client = client

    def manifest(self, digest: str = "") -> ManifestAnswer:
        reference = self.reference.replace(tag="", digest=digest) if digest else self.reference
        return self.client.manifest(reference)

    def blob(self, descriptor: Descriptor, *, offset: int = 0) -> Iterator[bytes]:
        return self.client.blob(descriptor, offset=offset)

    def abort(self) -> None:
        self.client.abort()


class StoreSource(Source):
    """The image of one manifest (or index) in the local store, whose blobs were verified when they came in."""

    def __init__(self, digest: str, *, blobs: Blobs) -> None:
        self._digest = digest
        self._blobs = blobs

    def manifest(self, digest: str = "") -> ManifestAnswer:
        digest = digest or self._digest
        body = self._blobs.read(digest)
        return ManifestAnswer(media_type=parse_manifest(body).media_type, body=body, digest=digest)

    def blob(self, descriptor: Descriptor, *, offset: int = 0) -> Iterator[bytes]:
        try:
            fd = self._blobs.open(descriptor.digest)
        except NotFound as err:
            raise NotFound(
                f"layer {short(descriptor.digest)} is not kept in its compressed form", hint="pull the image again"
            ) from err
        yield from pieces(fd, offset)

    def abort(self) -> None:
        pass


class RegistryTarget(Target):
    """A reference on its registry. ``mounts`` are repositories there that may have the layers already."""

    parallel = 4

    def __init__(
        self, reference: Reference, client: RegistryClient, *, mounts: Sequence[str] = (), verify: bool = True
    ) -> None:
        self._reference = reference
        self._client = client
        self._uploader = Uploader(client)
        self._mounts = mounts
        self._verify = verify

    def begin(self, contents: Contents) -> None:
        expected = self._reference.digest
        if expected and contents.top.digest != expected:
            raise InvalidArgument(
                f"cannot copy to {self._reference.familiar}", why=f"the image's digest is {contents.top.digest}"
            )

    def put_blob(self, descriptor: Descriptor, source: Source, *, progress: Progress) -> str:
        item = short(descriptor.digest)
        progress.start(item, descriptor.size, "Pushing")
        if self._uploader.has_blob(descriptor):
            return "Layer already exists"
        for repository in self._mounts:
            if self._uploader.mount_blob(descriptor.digest, repository):
                return f"Mounted from {repository}"
        verified = Verified(source, descriptor)

        def open_at(offset: int) -> Iterator[bytes]:
            # the store's blobs are verified already, and the registry hashes what it gets
            pieces = verified.open_at(offset) if self._verify else source.blob(descriptor, offset=offset)
            return watched(pieces, item, progress=progress)

        self._uploader.put_blob(descriptor, open_at)
        return "Pushed"

    def put_manifest(self, answer: ManifestAnswer, *, is_top: bool) -> None:
        name = self._reference.tag if is_top and self._reference.tag else answer.digest
        self._uploader.put_manifest(answer.body, media_type=answer.media_type, name=name)

    def abort(self) -> None:
        self._client.abort()
