"""Archives that hold an image: ``oci-archive:`` and ``docker-archive:``, read in place and written as a stream.

What is written is an OCI layout in a tar file; a docker-archive has ``manifest.json`` beside it, as docker writes it
since release 25, so that everybody can load it. Nothing is unpacked; a compressed archive is expanded into a file
without name.
"""

from __future__ import annotations

import hashlib
import os

from cloison.archive.budget import bad_archive, shown
from cloison.archive.decompress import decompress, sniff
from cloison.archive.headers import DIRECTORY, FILE, LINK, SYMLINK
from cloison.archive.reader import TarReader
from cloison.archive.writer import TarWriter, new_entry
from cloison.errors import Denied, InvalidArgument, NotFound, Unavailable
from cloison.images.archives import normal_name
from cloison.images.copy_files import answer_of, choose_named, named_descriptor
from cloison.images.copying import Source, Target, Verified, short, watched
from cloison.model.digest import split_digest
from cloison.model.reference import parse_reference
from cloison.oci.fields import Fields
from cloison.oci.image import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    Descriptor,
    Index,
    Manifest,
    parse_config,
    parse_manifest,
    render_document,
    render_index,
    render_manifest,
)
from cloison.oci.strict import MAX_DOCUMENT_BYTES, parse_json
from cloison.store.atomic import disk_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from cloison.images.copying import Contents
    from cloison.images.progress import Progress
    from cloison.registry.client import ManifestAnswer

_MAX_MEMBERS = 100_000
_MAX_HOPS = 8
_PIECE_BYTES = 1 << 20


class _File:
    """An open file as the reader of archives wants it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._offset = 0

    def read(self, size: int, /) -> bytes:
        data = os.pread(self._fd, size, self._offset)
        self._offset += len(data)
        return data


class ArchiveSource(Source):
    """The members of an archive by name, each read at its place; a context manager."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._places: dict[str, tuple[int, int]] = {}  # name -> offset, size
        self._links: dict[str, str] = {}
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"no such file: {path}") from None
        except OSError as err:
            raise Denied(f"cannot read {path}", why=os.strerror(err.errno or 0).lower()) from err
        try:
            if sniff(os.pread(self._fd, 6, 0)):
                self._expand()
            self._scan()
        except BaseException:
            os.close(self._fd)
            raise

    def _expand(self) -> None:
        expanded = os.open("/var/tmp", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            stream = decompress(_File(self._fd))
            while piece := stream.read(_PIECE_BYTES):
                view = memoryview(piece)
                while view:
                    view = view[os.write(expanded, view) :]
        except OSError as err:
            os.close(expanded)
            raise disk_error("the expanded archive", err) from err
        except BaseException:
            os.close(expanded)
            raise
        os.close(self._fd)
        self._fd = expanded

    def _scan(self) -> None:
        reader = TarReader(_File(self._fd))
        for entry in reader:
            if reader.entries > _MAX_MEMBERS:
                raise bad_archive(f"more than {_MAX_MEMBERS} members")
            name = normal_name(entry.name)
            if entry.kind == FILE and entry.extents is None:
                self._places[name] = (reader.position, entry.size)
            elif entry.kind in (SYMLINK, LINK):
                directory = os.path.dirname(name) if entry.kind == SYMLINK else ""
                self._links[name] = normal_name(os.path.join(directory.encode(), entry.link), inside=False)
            elif entry.kind != DIRECTORY:
                raise bad_archive(f"{shown(entry.name)} is no regular file")

    def find(self, name: str) -> tuple[int, int]:
        """Offset and size of a member's content, links followed. Raises: InvalidArgument."""
        wanted = normal_name(name.encode(errors="surrogateescape"))
        for _hop in range(_MAX_HOPS):
            if wanted in self._places:
                return self._places[wanted]
            if wanted not in self._links:
                break
            wanted = self._links[wanted]
        raise bad_archive(f"it has no file {shown(name.encode(errors='surrogateescape'))}")

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def content(self, name: str) -> bytes:
        """A document of the archive. Raises: InvalidArgument."""
        offset, size = self.find(name)
        if size > MAX_DOCUMENT_BYTES:
            raise bad_archive(f"{shown(name.encode())} has {size} bytes")
        return os.pread(self._fd, size, offset)

    def pieces(self, name: str, offset: int = 0) -> Iterator[bytes]:
        """A member's content from an offset on."""
        begin, size = self.find(name)
        while offset < size and (piece := os.pread(self._fd, min(_PIECE_BYTES, size - offset), begin + offset)):
            offset += len(piece)
            yield piece

    def abort(self) -> None:
        pass

    def __enter__(self) -> ArchiveSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)


class OciArchiveSource(ArchiveSource):
    """One image of an OCI layout in an archive."""

    def __init__(self, path: str, *, tag: str) -> None:
        super().__init__(path)
        self._tag = tag

    def manifest(self, digest: str = "") -> ManifestAnswer:
        media_type = ""
        if not digest:
            index = parse_manifest(self.content("index.json"), media_type=OCI_INDEX)
            if not isinstance(index, Index):
                raise bad_archive("its index.json is not an image index")
            top = choose_named(index, self._tag, where=self.path)
            digest, media_type = top.digest, top.media_type
        return answer_of(self.content(_path(digest)), digest=digest, media_type=media_type)

    def blob(self, descriptor: Descriptor, *, offset: int = 0) -> Iterator[bytes]:
        return self.pieces(_path(descriptor.digest), offset)


class DockerArchiveSource(ArchiveSource):
    """One image of a docker-archive; its manifest is made here, since the archive has none of that kind."""

    def __init__(self, path: str, *, name: str) -> None:
        super().__init__(path)
        self._names: dict[str, str] = {}  # digest -> member
        self._manifest = self._make_manifest(self._choose(name))

    def _choose(self, name: str) -> Fields:
        value = parse_json(self.content("manifest.json"), document="manifest.json")
        images = Fields({"images": value}, document="manifest.json").objects("images", lambda e: e, limit=1000)
        wanted = parse_reference(name).canonical if name else ""
        for image in images:
            if wanted in [parse_reference(tag).canonical for tag in image.texts("RepoTags")]:
                return image
        if wanted:
            raise NotFound(f"no image {name} in {self.path}")
        if len(images) != 1:
            raise InvalidArgument(f"cannot choose an image of {self.path}", why=f"it has {len(images)}")
        return images[0]

    def _make_manifest(self, image: Fields) -> bytes:
        config = self.content(image.text("Config"))
        config_digest = "sha256:" + hashlib.sha256(config).hexdigest()
        self._names[config_digest] = image.text("Config")
        diff_ids = parse_config(config).diff_ids
        members = image.texts("Layers")
        if len(members) != len(diff_ids):
            raise bad_archive("the configuration and manifest.json differ in layers")
        layers = tuple(self._layer(member, diff_id) for member, diff_id in zip(members, diff_ids, strict=True))
        described = Descriptor(media_type=OCI_CONFIG, digest=config_digest, size=len(config))
        return render_manifest(Manifest(config=described, layers=layers))

    def _layer(self, member: str, diff_id: str) -> Descriptor:
        """A layer's descriptor: a plain one has its diff ID for digest, which is verified while it is copied."""
        offset, size = self.find(member)
        kind = sniff(os.pread(self._fd, min(6, size), offset))
        digest = diff_id
        if kind:
            found = hashlib.sha256()
            for piece in self.pieces(member):
                found.update(piece)
            digest = "sha256:" + found.hexdigest()
        self._names[digest] = member
        return Descriptor(media_type=OCI_LAYER + (f"+{kind}" if kind else ""), digest=digest, size=size)

    def manifest(self, digest: str = "") -> ManifestAnswer:
        return answer_of(self._manifest, digest=digest)

    def blob(self, descriptor: Descriptor, *, offset: int = 0) -> Iterator[bytes]:
        return self.pieces(self._names[descriptor.digest], offset)


class ArchiveTarget(Target):
    """A tar file, visible when it is whole; a context manager. ``docker`` adds docker's table of contents."""

    parallel = 1  # one member after the other

    def __init__(self, path: str, *, name: str, docker: bool) -> None:
        self._path = path
        self._name = name
        self._docker = docker
        self._temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
        self._stopped = False
        try:
            self._file = open(self._temporary, "xb")
        except OSError as err:
            raise disk_error(path, err) from err
        self._tar = TarWriter(self._file)
        self._made: set[str] = set()

    def begin(self, contents: Contents) -> None:
        if self._docker and len(contents.manifests) > 1:
            raise InvalidArgument(
                f"cannot write {self._path}", why="a docker-archive holds images for one platform",
                hint="leave --all away, or use oci-archive:",
            )  # fmt: skip
        new = named_descriptor(contents.top, self._tag)
        self._add("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        self._add("index.json", render_index(Index(manifests=(new,))))
        if self._docker:
            self._add("manifest.json", self._docker_table(contents.top))
        for answer in contents.manifests:
            self._add(self._place(answer.digest), answer.body)

    @property
    def _tag(self) -> str:
        return parse_reference(self._name).tag if self._docker and self._name else self._name

    def _docker_table(self, top: ManifestAnswer) -> bytes:
        manifest = parse_manifest(top.body, media_type=top.media_type)
        assert isinstance(manifest, Manifest)
        tags = [parse_reference(self._name).familiar] if self._name else None
        layers = [_path(layer.digest) for layer in manifest.layers]
        return render_document([{"Config": _path(manifest.config.digest), "RepoTags": tags, "Layers": layers}])

    def put_blob(self, descriptor: Descriptor, source: Source, *, progress: Progress) -> str:
        item = short(descriptor.digest)
        progress.start(item, descriptor.size, "Copying")
        pieces = watched(Verified(source, descriptor).open_at(0), item, progress=progress)
        entry = new_entry(self._place(descriptor.digest).encode(), FILE, mode=0o644, size=descriptor.size)
        try:
            self._tar.add_pieces(entry, self._unstopped(pieces))
        except OSError as err:
            raise disk_error(self._path, err) from err
        return "Copied"

    def _unstopped(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            if self._stopped:
                raise Unavailable("the copy was cancelled")
            yield piece

    def put_manifest(self, answer: ManifestAnswer, *, is_top: bool) -> None:
        pass  # they were written first: the archive appears with its last member

    def _place(self, digest: str) -> str:
        """A blob's name; its directories come before it."""
        for directory in ("blobs/", f"blobs/{split_digest(digest)[0]}/"):
            if directory not in self._made:
                self._made.add(directory)
                self._tar.add(new_entry(directory.encode(), DIRECTORY, mode=0o755))
        return _path(digest)

    def _add(self, name: str, data: bytes) -> None:
        try:
            self._tar.add(new_entry(name.encode(), FILE, mode=0o644), data=data)
        except OSError as err:
            raise disk_error(self._path, err) from err

    def abort(self) -> None:
        self._stopped = True

    def __enter__(self) -> ArchiveTarget:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._file:
                if kind is None:
                    self._tar.finish()
            if kind is None:
                os.rename(self._temporary, self._path)
        except OSError as problem:
            raise disk_error(self._path, problem) from problem
        finally:
            try:
                os.unlink(self._temporary)
            except FileNotFoundError:
                pass


def _path(digest: str) -> str:
    return "/".join(("blobs", *split_digest(digest)))
