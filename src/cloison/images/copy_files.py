"""Directories that hold an image: OCI layouts (image-spec image-layout.md), and skopeo's flat ``dir:`` form.

Neither is ever half-written as far as its table of contents says: that comes last, by rename. A directory that was made
for a copy that fails goes with it.
"""

from __future__ import annotations

import os
import shutil

from cloison.errors import Denied, InvalidArgument, NotFound, Unavailable
from cloison.images.copying import Source, Target, Verified, pieces, short, watched
from cloison.model.digest import split_digest
from cloison.oci.image import OCI_INDEX, Descriptor, Index, parse_manifest, render_index
from cloison.oci.strict import MAX_DOCUMENT_BYTES
from cloison.registry.client import ManifestAnswer, check_digest
from cloison.store.atomic import disk_error, write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from cloison.images.copying import Contents
    from cloison.images.progress import Progress

# where tools put an image's name in an index; containerd's is the complete one
_NAMES = ("org.opencontainers.image.ref.name", "io.containerd.image.name")
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class DirectorySource(Source):
    """What both forms have in common; where a blob's file is, they say."""

    def __init__(self, root: str) -> None:
        self.root = root
        if not os.path.isdir(root):
            raise NotFound(f"no such directory: {root}")

    def place(self, digest: str, *, is_manifest: bool = False) -> str:
        """Path of a blob, or of a manifest."""
        raise NotImplementedError

    def top(self) -> Descriptor:
        """What the directory is about; its digest may be "" where nothing says it."""
        raise NotImplementedError

    def manifest(self, digest: str = "") -> ManifestAnswer:
        top = None if digest else self.top()
        path = self.place(top.digest if top else digest, is_manifest=True)
        body = read_small(path)
        wanted = top.digest if top else digest
        return answer_of(body, digest=wanted, media_type=top.media_type if top else "")

    def blob(self, descriptor: Descriptor, *, offset: int = 0) -> Iterator[bytes]:
        fd = _open(self.place(descriptor.digest))
        yield from pieces(fd, offset)

    def abort(self) -> None:
        pass


class LayoutSource(DirectorySource):
    """One image of an OCI layout: that of a tag, or the only one."""

    def __init__(self, root: str, *, tag: str) -> None:
        super().__init__(root)
        self._tag = tag

    def place(self, digest: str, *, is_manifest: bool = False) -> str:
        return os.path.join(self.root, "blobs", *split_digest(digest))

    def top(self) -> Descriptor:
        index = parse_manifest(read_small(f"{self.root}/index.json"), media_type=OCI_INDEX)
        assert isinstance(index, Index)
        return choose_named(index, self._tag, where=self.root)


class FlatSource(DirectorySource):
    """skopeo's ``dir:``."""

    def place(self, digest: str, *, is_manifest: bool = False) -> str:
        if not digest:
            return f"{self.root}/manifest.json"
        encoded = split_digest(digest)[1]
        return f"{self.root}/{encoded}" + (".manifest.json" if is_manifest else "")

    def top(self) -> Descriptor:
        return Descriptor(media_type="", digest="", size=0)


class DirectoryTarget(Target):
    """The writing side of both forms; a context manager."""

    parallel = 4

    def __init__(self, root: str) -> None:
        self.root = root
        self._is_new = not os.path.lexists(root)
        self._stopped = False

    def place(self, digest: str) -> str:
        """Path of a blob."""
        raise NotImplementedError

    def put_blob(self, descriptor: Descriptor, source: Source, *, progress: Progress) -> str:
        item, path = short(descriptor.digest), self.place(descriptor.digest)
        if os.path.isfile(path) and os.path.getsize(path) == descriptor.size:
            return "Already exists"
        progress.start(item, descriptor.size, "Copying")
        pieces = watched(Verified(source, descriptor).open_at(0), item, progress=progress)
        self._write(path, pieces)
        return "Copied"

    def _write(self, path: str, pieces: Iterator[bytes]) -> None:
        temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
        try:
            with open(temporary, "xb", buffering=0) as file:
                for piece in pieces:
                    view = memoryview(piece)
                    while view:
                        view = view[file.write(view) :]
                    if self._stopped:
                        raise Unavailable("the copy was cancelled")
            os.rename(temporary, path)
        except BaseException as err:
            try:
                os.unlink(temporary)
            except OSError:
                pass
            if isinstance(err, OSError):
                raise disk_error(path, err) from err
            raise

    def make(self, *directories: str) -> None:
        """The directories, for everybody to read as the user's umask has it. Raises: Denied, Unavailable."""
        for directory in directories:
            try:
                os.makedirs(directory, exist_ok=True)
            except OSError as err:
                raise disk_error(directory, err) from err

    def abort(self) -> None:
        self._stopped = True

    def __enter__(self) -> DirectoryTarget:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._is_new:
            shutil.rmtree(self.root, ignore_errors=True)


class LayoutTarget(DirectoryTarget):
    """An OCI layout, new or with other images in it; ``tag`` names the new one there."""

    def __init__(self, root: str, *, tag: str) -> None:
        super().__init__(root)
        self._tag = tag

    def place(self, digest: str) -> str:
        return os.path.join(self.root, "blobs", *split_digest(digest))

    def begin(self, contents: Contents) -> None:
        digests = [item.digest for item in contents.blobs] + [item.digest for item in contents.manifests]
        algorithms = {split_digest(digest)[0] for digest in digests}
        self.make(*(f"{self.root}/blobs/{name}" for name in algorithms))
        write_file(f"{self.root}/oci-layout", _LAYOUT, durable=False, mode=0o644)

    def put_manifest(self, answer: ManifestAnswer, *, is_top: bool) -> None:
        write_file(self.place(answer.digest), answer.body, durable=False, mode=0o644)
        if is_top:
            new = named_descriptor(answer, self._tag)
            kept = [item for item in self._known() if not self._is_replaced(item, new)]
            index = render_index(Index(manifests=(*kept, new)))
            write_file(f"{self.root}/index.json", index, durable=True, mode=0o644)

    def _is_replaced(self, item: Descriptor, new: Descriptor) -> bool:
        name = item.annotations.get(_NAMES[0], "")
        return name == self._tag if self._tag else item.digest == new.digest and not name

    def _known(self) -> tuple[Descriptor, ...]:
        path = f"{self.root}/index.json"
        if not os.path.exists(path):
            return ()
        index = parse_manifest(read_small(path), media_type=OCI_INDEX)
        return index.manifests if isinstance(index, Index) else ()


class FlatTarget(DirectoryTarget):
    """skopeo's ``dir:``: one image, its files by their hex digests."""

    def place(self, digest: str) -> str:
        return f"{self.root}/{split_digest(digest)[1]}"

    def begin(self, contents: Contents) -> None:
        if not self._is_new and os.path.isdir(self.root) and not os.path.exists(f"{self.root}/version"):
            if os.listdir(self.root):
                raise Denied(f"cannot copy to {self.root}", why="it is not empty, and no directory of an image")
        self.make(self.root)
        write_file(f"{self.root}/version", "Directory Transport Version: 1.1\n", durable=False, mode=0o644)

    def put_manifest(self, answer: ManifestAnswer, *, is_top: bool) -> None:
        path = f"{self.root}/manifest.json" if is_top else self.place(answer.digest) + ".manifest.json"
        write_file(path, answer.body, durable=is_top, mode=0o644)


# --- what archives need, too ----------------------------------------------------------------------------------------


def choose_named(index: Index, name: str, *, where: str) -> Descriptor:
    """The image of a name in a layout's table, or its only one. Raises: NotFound, InvalidArgument."""
    known = [next(filter(None, map(item.annotations.get, _NAMES)), "") for item in index.manifests]
    if name:
        for item in index.manifests:
            if name in map(item.annotations.get, _NAMES):
                return item
        raise NotFound(
            f"no image {name} in {where}", why=f"it has {', '.join(filter(None, known)) or 'none with a name'}"
        )
    if len(index.manifests) != 1:
        names = ", ".join(filter(None, known)) or "no names"
        raise InvalidArgument(f"cannot choose an image of {where}", why=f"it has {len(known)}: {names}")
    return index.manifests[0]


def named_descriptor(answer: ManifestAnswer, name: str) -> Descriptor:
    """An entry of a layout's table."""
    annotations = {_NAMES[0]: name} if name else {}
    return Descriptor(
        media_type=answer.media_type, digest=answer.digest, size=len(answer.body), annotations=annotations
    )  # fmt: skip


def answer_of(body: bytes, *, digest: str = "", media_type: str = "") -> ManifestAnswer:
    """A manifest from a file, verified where its digest is known. Raises: InvalidArgument."""
    actual = check_digest(body, digest)
    return ManifestAnswer(media_type=parse_manifest(body, media_type=media_type).media_type, body=body, digest=actual)


def read_small(path: str) -> bytes:
    """A document. Raises: NotFound, Denied, InvalidArgument (too large)."""
    fd = _open(path)
    with os.fdopen(fd, "rb") as file:
        data = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidArgument(f"cannot read {path}", why=f"more than {MAX_DOCUMENT_BYTES} bytes")
    return data


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}", hint="is it a directory of an image?") from None
    except OSError as err:
        raise Denied(f"cannot read {path}", why=os.strerror(err.errno or 0).lower()) from err
