"""The distribution specification, the writing half: blobs and manifests into one repository, and out of it again."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

from cloison.errors import CloisonError, InvalidArgument, Unavailable
from cloison.oci.image import OCI_INDEX, parse_subject
from cloison.registry.budget import TransferBroken
from cloison.registry.origin import printable
from cloison.registry.referrers import note_referrer
from cloison.registry.transport import Body

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloison.oci.image import Descriptor
    from cloison.registry.client import RegistryClient
    from cloison.registry.transport import Response

    Open = Callable[[int], Iterator[bytes]]

# up to here a blob goes in one request after the POST; above, in a PATCH that can be resumed
_MONOLITHIC_BYTES = 1 << 20
# for registries behind a proxy that refuses bodies of any length
_CHUNK_BYTES = 16 << 20
_PIECE_BYTES = 128 << 10
_OCTETS = {"Content-Type": "application/octet-stream"}


class Uploader:
    """Puts content into the repository of a client whose token allows it. Thread-safe."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client
        self._session = client.session
        self._path = client.endpoint.path
        self._limits = client.session.limits

    def has_blob(self, descriptor: Descriptor) -> bool:
        """HEAD. Raises: Denied, Unavailable; InvalidArgument when it is there with another size."""
        resource = f"{self._path}/blobs/{descriptor.digest}"
        with self._session.get(resource, {}, body_bytes=0, method="HEAD") as response:
            if response.status == 404:
                return False
            self._session.check(response, 200, missing="")
            length = response.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length) != descriptor.size:
            why = f"the registry has {length} bytes for {descriptor.size}"
            raise InvalidArgument(f"blob {descriptor.digest} does not match", why=why)
        return True

    def mount_blob(self, digest: str, source: str) -> bool:
        """Take a blob over from another repository of this registry; False where it is not there, or not for us."""
        resource = f"{self._path}/blobs/uploads/?mount={quote(digest, safe='')}&from={quote(source, safe='')}"
        with self._session.send("POST", resource) as response:
            if response.status == 201:
                return True
            if response.status in (401, 403, 404, 405):
                return False
            self._session.check(response, 202, missing=self._no_repository())
            location = self._location(resource, response)
        self._cancel(location)  # it began an ordinary upload instead
        return False

    def put_blob(self, descriptor: Descriptor, open_at: Open) -> None:
        """Upload; ``open_at(offset)`` gives the content from there on, and may be asked again to resume.

        Raises: Denied, Unavailable; InvalidArgument (DIGEST_INVALID); what ``open_at`` raises: nothing is left then.
        """
        resource = f"{self._path}/blobs/uploads/"
        with self._session.send("POST", resource) as response:
            self._session.check(response, 202, missing=self._no_repository())
            location = self._location(resource, response)
        upload = _Upload(self, descriptor, location)
        try:
            if descriptor.size <= _MONOLITHIC_BYTES:
                upload.finish(b"".join(open_at(0)))
            else:
                upload.send_all(open_at)
                upload.finish(b"")
        except BaseException:
            self._cancel(upload.location)
            raise

    def put_manifest(self, body: bytes, *, media_type: str, name: str) -> str:
        """Put a manifest or index under a tag or its digest; the digest. Raises: Denied, Unavailable, InvalidArgument.

        One that has a subject is also listed among its referrers, where the registry does not do so by itself.
        """
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        resource = f"{self._path}/manifests/{name}"
        with self._session.send("PUT", resource, headers={"Content-Type": media_type}, body=body) as response:
            if response.status == 400:
                raise InvalidArgument(f"registry {self._session.name} refuses the manifest", why=self._why(response))
            self._session.check(response, 201, 200, missing=self._no_repository())
            announced = response.headers.get("docker-content-digest", digest)
            knows_subjects = "oci-subject" in response.headers
        if announced != digest and name != announced:
            raise InvalidArgument(
                f"registry {self._session.name} stored another manifest", why=f"{printable(announced)}, not {digest}"
            )
        subject = parse_subject(body)
        if subject is not None and not knows_subjects:
            note_referrer(self._client, subject.digest, body=body, media_type=media_type, put=self._put_index)
        return digest

    def _put_index(self, body: bytes, name: str) -> None:
        self.put_manifest(body, media_type=OCI_INDEX, name=name)

    def delete_manifest(self, name: str) -> None:
        """Take a manifest (by digest) or a tag away. Raises: NotFound, Unsupported (deleting is off), Denied."""
        with self._session.send("DELETE", f"{self._path}/manifests/{name}") as response:
            self._session.check(response, 202, 200, 204, missing=f"manifest {name} not found in {self._path}")

    # -- inside

    def _location(self, resource: str, response: Response) -> str:
        location = response.headers.get("location", "")
        if not location:
            raise Unavailable(f"registry {self._session.name} does not say where to upload")
        return self._session.at_home(resource, location)

    def _cancel(self, location: str) -> None:
        try:
            self._session.send("DELETE", location).close()
        except CloisonError:
            pass  # registries purge old uploads by themselves

    def _no_repository(self) -> str:
        return f"repository {self._path} not found on registry {self._session.name}"

    def _why(self, response: Response) -> str:
        from cloison.registry.session import error_text

        return error_text(response) or f"status {response.status}"


class _Upload:
    """One blob on its way out."""

    def __init__(self, owner: Uploader, descriptor: Descriptor, location: str) -> None:
        self.location = location
        self._owner = owner
        self._session = owner._session
        self._descriptor = descriptor
        self._chunk_bytes = descriptor.size
        self._offset = 0
        self._breaks = 0

    def send_all(self, open_at: Open) -> None:
        """PATCH until the registry has everything, beginning again where it says that the last one broke off."""
        while self._offset < self._descriptor.size:
            try:
                self._send_chunk(open_at)
            except TransferBroken:
                self._breaks += 1
                limits = self._session.limits
                if self._breaks > limits.resumes:
                    raise
                self._session.pause(min(limits.backoff_s * 2 ** (self._breaks - 1), limits.retry_after_max_s))
                self._offset = self._arrived()

    def _send_chunk(self, open_at: Open) -> None:
        begin, end = self._offset, min(self._offset + self._chunk_bytes, self._descriptor.size)
        headers = dict(_OCTETS)
        if begin or end < self._descriptor.size:
            headers["Content-Range"] = f"{begin}-{end - 1}"
        body = Body(_cut(open_at(begin), end - begin), size=end - begin)
        with self._session.send("PATCH", self.location, headers=headers, body=body) as response:
            if response.status == 413 and self._chunk_bytes > _CHUNK_BYTES:
                self._chunk_bytes = _CHUNK_BYTES
                return
            if response.status in (429, 500, 502, 503, 504):
                raise TransferBroken(f"registry {self._session.name} answers with status {response.status}")
            self._session.check(response, 202, 201, 204, missing=f"the upload to {self._session.name} has gone")
            self.location = self._owner._location(self.location, response)
        self._offset = end

    def _arrived(self) -> int:
        """How many bytes the registry has (GET of the upload's address: ``Range: 0-N``)."""
        with self._session.send("GET", self.location) as response:
            self._session.check(response, 204, 202, 200, missing=f"the upload to {self._session.name} has gone")
            if "location" in response.headers:
                self.location = self._owner._location(self.location, response)
            first, dash, last = response.headers.get("range", "").removeprefix("bytes=").partition("-")
        if first != "0" or not (last.isascii() and last.isdigit()) or not dash or last == "0":
            return 0  # the specification has no word for "nothing yet": registries say 0-0
        return min(int(last) + 1, self._descriptor.size)

    def finish(self, body: bytes) -> None:
        digest = self._descriptor.digest
        mark = "&" if "?" in self.location else "?"
        url = f"{self.location}{mark}digest={quote(digest, safe='')}"
        with self._session.send("PUT", url, headers=_OCTETS, body=body) as response:
            if response.status == 400:
                raise InvalidArgument(f"blob {digest} does not match", why=self._owner._why(response))
            self._session.check(response, 201, 204, missing=f"the upload to {self._session.name} has gone")


def _cut(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The first ``size`` bytes, in pieces that a slow line takes before a time-out. Raises: InvalidArgument."""
    left = size
    for piece in pieces:
        view = memoryview(piece)[:left]
        left -= len(view)
        for begin in range(0, len(view), _PIECE_BYTES):
            yield bytes(view[begin : begin + _PIECE_BYTES])
        if not left:
            return
    raise InvalidArgument("cannot upload the blob", why=f"its content ends {left} bytes early")
