"""Content by digest: ``blobs/<algorithm>/<hex>``, immutable, hashed before the rename that makes it visible.

A blob being written lives in ``blobs/incoming/``, locked by its writer: a free lock there means a crash, and the next
``sweep`` removes it, unless it is the beginning of a blob that can be gone on with (`cloison.store.partial`). Nothing
here is fsynced one by one: whoever publishes an image calls ``sync`` once, before the record that makes the image
visible (one syncfs instead of n fsyncs).
"""

from __future__ import annotations

import hashlib
import os

from cloison.errors import InvalidArgument, NotFound, Unavailable
from cloison.model.digest import is_digest, split_digest
from cloison.store.atomic import disk_error, make_private_directory
from cloison.store.locks import Claim, Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from cloison.store.partial import PartialBlob

PARTIAL_SUFFIX = ".partial"
_ALGORITHMS = ("sha256", "sha512")
_CHUNK = 1 << 20


class Blobs:
    """The blobs of one data root. Thread-safe and process-safe: two writers of one digest both succeed."""

    def __init__(self, data_root: str) -> None:
        self.root = os.path.join(data_root, "blobs")
        self.incoming = os.path.join(self.root, "incoming")

    def path(self, digest: str) -> str:
        """Where the blob is, or would be. Raises: InvalidArgument."""
        algorithm, encoded = split_digest(digest)
        return os.path.join(self.root, algorithm, encoded)

    def has(self, digest: str) -> bool:
        return os.path.exists(self.path(digest))

    def size(self, digest: str) -> int:
        """Bytes. Raises: NotFound."""
        fd = self.open(digest)
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def open(self, digest: str) -> int:
        """A descriptor for reading, the caller's to close. Raises: NotFound."""
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise NotFound(f"no such blob: {digest}") from None

    def read(self, digest: str, limit: int = 4 << 20) -> bytes:
        """All of a small blob, verified again. Raises: NotFound; InvalidArgument above ``limit``; as `check`."""
        with os.fdopen(self.open(digest), "rb", buffering=0) as file:
            data = file.read(limit + 1) or b""
            if len(data) > limit:
                raise InvalidArgument(f"blob {digest} is too large", why=f"more than {limit} bytes")
            if hashlib.new(digest.partition(":")[0], data).hexdigest() != digest.partition(":")[2]:
                raise self._drop(digest, file.fileno())
        return data

    def check(self, digest: str) -> None:
        """Hash it again. Raises: NotFound; Unavailable when it is damaged: it is removed then, to be brought anew."""
        with os.fdopen(self.open(digest), "rb", buffering=0) as file:
            found = hashlib.new(digest.partition(":")[0])
            while piece := file.read(_CHUNK):
                found.update(piece)
            if found.hexdigest() != digest.partition(":")[2]:
                raise self._drop(digest, file.fileno())

    def is_whole(self, digest: str) -> bool:
        """Whether its content is what its name says; one that is not there is not."""
        try:
            fd = self.open(digest)
        except NotFound:
            return False
        with os.fdopen(fd, "rb", buffering=0) as file:
            return hashlib.file_digest(file, digest.partition(":")[0]).hexdigest() == digest.partition(":")[2]

    def _drop(self, digest: str, fd: int) -> Unavailable:
        """Remove the damaged file, unless somebody has put a whole one in its place meanwhile."""
        path = self.path(digest)
        try:
            if os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False)):
                os.unlink(path)
        except FileNotFoundError:
            pass
        return Unavailable(
            f"blob {digest} was damaged on disk", why="its content had changed, so it was removed",
            hint="pull or load the image again",
        )  # fmt: skip

    def writer(self, digest: str, size: int = -1) -> BlobWriter:
        """Stream a blob in; it becomes visible at the end of the ``with`` block, when digest and size are right.

        size -1 is "not known". Raises: InvalidArgument for a malformed digest.
        """
        self.path(digest)
        return BlobWriter(self, incoming=self.incoming, digest=digest, size=size)

    def partial(self, digest: str, size: int) -> PartialBlob:
        """As `writer`, for whoever has the blob's claim: goes on where an earlier transfer was cut short.

        Raises: InvalidArgument for a malformed digest.
        """
        from cloison.store.partial import PartialBlob

        self.path(digest)
        return PartialBlob(self, incoming=self.incoming, digest=digest, size=size)

    def collector(self) -> BlobWriter:
        """A writer for bytes whose digest is not known before; afterwards its ``digest`` names them (sha256)."""
        return BlobWriter(self, incoming=self.incoming, digest="", size=-1)

    def claim(self, digest: str, *, wait: bool = True) -> Claim:
        """Whoever is about to bring a blob holds this, so that others who want it wait and find it, not fetch it again.

        Raises: BlockingIOError when not waiting and somebody has it.
        """
        make_private_directory(self.incoming)
        return Claim(os.path.join(self.incoming, "-".join(split_digest(digest)) + ".claim"), wait=wait)

    def add_bytes(self, data: bytes, *, digest: str = "") -> str:
        """Store these bytes; the digest (of the algorithm that a given one has) names them.

        Raises: InvalidArgument when they are not those of ``digest``; Unavailable, Denied.
        """
        digest = digest or "sha256:" + hashlib.sha256(data).hexdigest()
        if not self._holds(digest, data):
            with self.writer(digest, len(data)) as out:
                out.write(data)
        return digest

    def _holds(self, digest: str, data: bytes) -> bool:
        """Whether the blob is there and undamaged: we have its content at hand, so looking costs little."""
        try:
            with os.fdopen(self.open(digest), "rb", buffering=0) as file:
                return file.read(len(data) + 1) == data
        except NotFound:
            return False

    def remove(self, digest: str) -> bool:
        """Whether there was one."""
        try:
            os.unlink(self.path(digest))
        except FileNotFoundError:
            return False
        return True

    def list(self) -> Iterator[str]:
        """Digests of all blobs, in no order."""
        for algorithm in _ALGORITHMS:
            for name in _names(os.path.join(self.root, algorithm)):
                if is_digest(f"{algorithm}:{name}"):
                    yield f"{algorithm}:{name}"

    def sync(self) -> None:
        """Everything written so far on this file system survives a power cut."""
        from cloison.linux.disk import sync_filesystem

        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_filesystem(fd)
        except OSError as err:
            raise disk_error(self.root, err) from err
        finally:
            os.close(fd)

    def sweep(self, *, partials_before_s: float) -> int:
        """Remove what crashed writers left; beginnings of blobs if nothing was added since that moment (Unix time).

        Returns how many files.
        """
        removed = 0
        for name in _names(self.incoming):
            path = os.path.join(self.incoming, name)
            if not (name.endswith(PARTIAL_SUFFIX) and _is_of_use(path, partials_before_s)):
                removed += _remove_abandoned(path)
        return removed


class BlobWriter:
    """One blob on its way in; a context manager. Leaving by an exception, or unfinished, leaves nothing behind."""

    def __init__(self, blobs: Blobs, *, incoming: str, digest: str, size: int) -> None:
        self.digest = digest
        self.expected = size
        self.written = 0
        self._blobs = blobs
        self._incoming = incoming
        self._temporary = ""
        self._fd = -1
        self._lock: Lock | None = None
        self._algorithm = digest.partition(":")[0] or "sha256"
        self._hash = hashlib.new(self._algorithm)

    def __enter__(self) -> BlobWriter:
        make_private_directory(self._incoming)
        make_private_directory(os.path.join(self._blobs.root, self._algorithm))
        self._temporary = os.path.join(self._incoming, self._name())
        try:
            self._open()
        except OSError as err:
            raise disk_error(self._temporary, err) from err
        return self

    def _name(self) -> str:
        return f"{os.getpid()}-{os.urandom(8).hex()}"

    def _open(self) -> None:
        self._lock = Lock(self._temporary)
        self._fd = self._lock.fd

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append. Raises: InvalidArgument as soon as it is too long, Unavailable when the disk is full."""
        size = len(data)
        self.written += size
        if 0 <= self.expected < self.written:
            raise InvalidArgument(f"blob {self.digest} does not match", why=f"longer than {self.expected} bytes")
        self._hash.update(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as err:
            raise disk_error(self._temporary, err) from err
        return size

    def restart(self) -> None:
        """Forget what was written, for a transfer that begins anew."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self.written = 0
        self._hash = hashlib.new(self._algorithm)

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._publish()
        finally:
            if self._temporary and not self._keeps(err):
                try:
                    os.unlink(self._temporary)
                except OSError:
                    pass
            if self._lock is not None:
                self._lock.release()
            self._fd = -1

    def _keeps(self, err: BaseException | None) -> bool:
        """Whether what was written stays after this failure."""
        return False

    def _digest(self) -> str:
        return f"{self._algorithm}:{self._hash.hexdigest()}"

    def _publish(self) -> None:
        if 0 <= self.expected != self.written:
            why = f"{self.written} bytes, not {self.expected}"
            raise InvalidArgument(f"blob {self.digest} does not match", why=why)
        found = self._digest()
        if self.digest not in ("", found):
            raise InvalidArgument(f"blob {self.digest} does not match", why=f"its content is {found}")
        self.digest = found
        path = self._blobs.path(found)
        try:
            os.fchmod(self._fd, 0o444)
            os.rename(self._temporary, path)
        except OSError as problem:
            raise disk_error(path, problem) from problem
        self._temporary = ""


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _is_of_use(partial: str, since_s: float) -> bool:
    try:
        info = os.stat(partial, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return info.st_size > 0 and info.st_mtime >= since_s


def _remove_abandoned(path: str) -> bool:
    try:
        lock = Lock(path, wait=False)
    except BlockingIOError:
        return False
    try:
        os.unlink(path)
    finally:
        lock.release()
    return True
