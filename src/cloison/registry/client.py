"""The distribution specification, the reading half: manifests and blobs of one repository.

Manifests are verified here. A blob's bytes are handed on as they come: the store hashes them while it writes.
"""

from __future__ import annotations

import hashlib
from functools import partial

from cloison.errors import InvalidArgument, Unavailable, Unsupported
from cloison.model.digest import is_digest
from cloison.model.record import Record
from cloison.oci.image import INDEX_TYPES, MANIFEST_TYPES
from cloison.oci.strict import MAX_DOCUMENT_BYTES
from cloison.registry.budget import Limits, TransferBroken
from cloison.registry.origin import LOOPBACK, printable
from cloison.registry.session import Endpoint, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from cloison.model.reference import Reference
    from cloison.model.settings import Settings
    from cloison.oci.image import Descriptor
    from cloison.registry.auth import Credentials
    from cloison.registry.transport import Response

_ACCEPT = ", ".join(MANIFEST_TYPES + INDEX_TYPES)
_CHUNK_BYTES = 256 << 10


class ManifestAnswer(Record):
    """A manifest or an index as the registry gave it, its digest verified."""

    media_type: str
    body: bytes
    digest: str


def repository_scope(path: str, actions: str) -> str:
    """What a token for ``actions`` ("pull", "pull,push") on one repository is asked for with (scope.md)."""
    return f"repository:{path}:{actions}"


class RegistryClient:
    """One repository of one registry, for reading; thread-safe; a context manager."""

    def __init__(
        self, reference: Reference, *, settings: Settings, credentials: Credentials | None = None,
        limits: Limits | None = None, tls: ssl.SSLContext | None = None, endpoint: Endpoint | None = None,
        actions: str = "pull", mounts: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """``actions`` are asked for on this repository, pulling on those of ``mounts`` (paths on the same registry)."""
        self._limits = limits or Limits()
        self.reference = reference
        self.endpoint = endpoint or Endpoint(domain=reference.domain, path=reference.path)
        scopes = [repository_scope(self.endpoint.path, actions), *(repository_scope(path, "pull") for path in mounts)]
        self.session = Session(
            self.endpoint, settings=settings, scope=" ".join(scopes),
            credentials=credentials, limits=self._limits, tls=tls,
        )  # fmt: skip

    def manifest(self, reference: Reference) -> ManifestAnswer:
        """What ``reference`` names in this repository; its digest wins over its tag.

        Raises: NotFound, Denied, Unavailable, Unsupported (schema 1), InvalidArgument (digest or type does not match).
        """
        name = reference.digest or reference.tag
        with self._get(f"manifests/{name}", {"Accept": _ACCEPT}, body_bytes=MAX_DOCUMENT_BYTES) as response:
            self.session.check(response, 200, missing=f"manifest for {reference.familiar} not found")
            body = response.read(MAX_DOCUMENT_BYTES)
        digest = _verified_digest(body, reference, announced=response.headers.get("docker-content-digest", ""))
        return ManifestAnswer(media_type=_media_type(response, reference), body=body, digest=digest)

    def digest(self, reference: Reference) -> str:
        """What ``reference`` names now, as the registry says it in one HEAD; "" when it does not say.

        Raises: as `manifest`.
        """
        resource, headers = f"manifests/{reference.digest or reference.tag}", {"Accept": _ACCEPT}
        answered = self.session.glance(f"{self.endpoint.path}/{resource}", headers)
        if answered is None:
            with self._get(resource, headers, body_bytes=0, method="HEAD") as response:
                self.session.check(response, 200, missing=f"manifest for {reference.familiar} not found")
                answered = response.headers
        digest = answered.get("docker-content-digest", "")
        return digest if is_digest(digest) else ""

    def blob(self, descriptor: Descriptor, *, offset: int = 0) -> Iterator[bytes]:
        """The bytes of a blob from ``offset`` to its end, not yet verified; resumed where the transfer broke.

        Raises: NotFound, Denied, Unavailable; InvalidArgument when the registry's idea of the size is another one.
        """
        if self._comes_in_parts(descriptor, offset):
            from cloison.registry.ranges import fetch_parts

            first = self._part(descriptor, offset, offset + self._limits.range_bytes)
            if first:
                yield first
                offset += len(first)
                yield from fetch_parts(
                    partial(self._whole_part, descriptor), offset, end=descriptor.size,
                    part_bytes=self._limits.range_bytes, count=self._parallel(),
                )  # fmt: skip
                return
        breaks = 0
        while True:
            try:
                for chunk in self._blob_from(descriptor, offset):
                    offset += len(chunk)
                    yield chunk
                return
            except TransferBroken as err:
                if offset == descriptor.size:
                    return  # broke behind the last byte
                breaks = self._after_break(breaks, err)

    def _after_break(self, breaks: int, err: TransferBroken) -> int:
        """Wait before a transfer goes on; how often it broke. Raises: ``err`` when it was once too often."""
        limits = self._limits
        if breaks >= limits.resumes:
            raise err
        self.session.pause(min(limits.backoff_s * 2**breaks, limits.retry_after_max_s))
        return breaks + 1

    # -- a big blob in parts

    def _parallel(self) -> int:
        at_home = self.session.guard.home_kind == LOOPBACK
        return self._limits.ranges_on_loopback if at_home else self._limits.ranges

    def _comes_in_parts(self, descriptor: Descriptor, offset: int) -> bool:
        return self._parallel() > 1 and descriptor.size - offset >= self._limits.big_blob_bytes

    def _whole_part(self, descriptor: Descriptor, begin: int, end: int) -> bytes:
        data = self._part(descriptor, begin, end)
        if not data:
            raise Unavailable(f"blob {descriptor.digest} cannot be read in parts", why="the registry gave up on ranges")
        return data

    def _part(self, descriptor: Descriptor, begin: int, end: int) -> bytes:
        """These bytes, asked for again where they broke off; b"" from a registry that gives no ranges."""
        pieces: list[bytes] = []
        breaks = 0
        while begin < end:
            try:
                for piece in self._range(descriptor, begin, end):
                    pieces.append(piece)
                    begin += len(piece)
                if not pieces:
                    return b""
            except TransferBroken as err:
                breaks = self._after_break(breaks, err)
        return b"".join(pieces)

    def _range(self, descriptor: Descriptor, begin: int, end: int) -> Iterator[bytes]:
        """One request for a part; nothing when the answer is the whole blob."""
        with self._open_blob(descriptor, {"Range": f"bytes={begin}-{end - 1}"}) as response:
            if response.status == 200:
                return
            self.session.check(response, 206, missing=f"blob {descriptor.digest} not found")
            expected = f"bytes {begin}-{end - 1}/"
            if response.headers.get("content-range", "") not in (f"{expected}{descriptor.size}", f"{expected}*"):
                raise Unavailable(f"blob {descriptor.digest} is refused", why="the registry sends another range")
            while begin < end and (piece := response.read_some(min(_CHUNK_BYTES, end - begin))):
                begin += len(piece)
                yield piece
        if begin < end:
            raise _wrong_size(descriptor, f"the registry sends {end - begin} fewer")

    def _blob_from(self, descriptor: Descriptor, offset: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        remaining = descriptor.size - offset
        with self._open_blob(descriptor, headers) as response:
            good = (200, 206) if headers else (200,)
            self.session.check(response, *good, missing=f"blob {descriptor.digest} not found")
            skip = _check_range(response, descriptor, offset=offset)
            while chunk := response.read_some(_CHUNK_BYTES):
                fresh, skip = chunk[skip:], max(0, skip - len(chunk))
                remaining -= len(fresh)
                if remaining < 0:
                    raise _wrong_size(descriptor, "the registry sends more")
                if fresh:
                    yield fresh
        if remaining:
            raise _wrong_size(descriptor, f"the registry sends {remaining} fewer")

    def _open_blob(self, descriptor: Descriptor, headers: Mapping[str, str]) -> Response:
        try:
            return self._get(f"blobs/{descriptor.digest}", headers, body_bytes=descriptor.size)
        except TransferBroken as err:
            # tried several times already: to resume would multiply the patience
            raise Unavailable(err.what, why=err.why) from err

    def abort(self) -> None:
        """End all transfers, from any thread."""
        self.session.abort()

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.close()

    def _get(self, resource: str, headers: Mapping[str, str], *, body_bytes: int, method: str = "GET") -> Response:
        resource = f"{self.endpoint.path}/{resource}"
        return self.session.get(resource, headers, body_bytes=body_bytes, method=method)


def _media_type(response: Response, reference: Reference) -> str:
    """``Content-Type`` without parameters, if we asked for it; that the body agrees is the parser's to check."""
    announced = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if announced in MANIFEST_TYPES + INDEX_TYPES:
        return announced
    what = f"cannot use the manifest of {reference.familiar}"
    if announced.startswith("application/vnd.docker.distribution.manifest.v1+"):
        raise Unsupported(
            what, why="it has Docker's schema 1, obsolete since 2017", hint="push the image again with a newer tool"
        )
    raise Unsupported(what, why=f"its media type is {printable(announced) or 'not given'}")


def _verified_digest(body: bytes, reference: Reference, *, announced: str) -> str:
    """The digest of a manifest: what was asked for, else what the registry says, and true in any case."""
    if announced and not is_digest(announced):
        raise InvalidArgument(
            f"manifest for {reference.familiar} does not match", why="the registry names a malformed digest"
        )
    actual = ""
    for expected in filter(None, (announced, reference.digest)):
        actual = _digest_like(expected, body)
        if actual != expected:
            raise InvalidArgument(
                f"manifest for {reference.familiar} does not match", why=f"expected {expected}, got {actual}"
            )
    return actual or _digest_like("sha256", body)


def check_digest(body: bytes, expected: str = "") -> str:
    """The digest of a manifest, of the algorithm that is expected. Raises: InvalidArgument when it is another one."""
    actual = _digest_like(expected or "sha256", body)
    if expected and actual != expected:
        raise InvalidArgument(f"manifest {expected} does not match", why=f"its content is {actual}")
    return actual


def _digest_like(digest: str, body: bytes) -> str:
    algorithm = digest.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"


def _check_range(response: Response, descriptor: Descriptor, *, offset: int) -> int:
    """How many bytes of this answer we have already (RFC 9110 section 14.4). Raises: InvalidArgument, Unavailable."""
    begins = offset if response.status == 206 else 0
    if response.status == 206:
        expected = f"bytes {offset}-{descriptor.size - 1}/"
        if response.headers.get("content-range", "") not in (f"{expected}{descriptor.size}", f"{expected}*"):
            raise Unavailable(f"blob {descriptor.digest} cannot be resumed", why="the registry sends another range")
    length = response.headers.get("content-length", "")
    if length and length != str(descriptor.size - begins):
        raise _wrong_size(descriptor, f"the registry has {printable(length)} bytes for {descriptor.size - begins}")
    return offset - begins


def _wrong_size(descriptor: Descriptor, why: str) -> InvalidArgument:
    return InvalidArgument(f"blob {descriptor.digest} does not have {descriptor.size} bytes", why=why)
