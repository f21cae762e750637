"""`load`: docker-archives (manifest.json) and OCI layouts (index.json) in a tar stream -> stored images.

The stream is read once. Its files become blobs under the digests of their content; the names in the archive are keys of
a dictionary here and never paths, and what the archive says about digests and ids is compared, never believed.
Sources: image-spec image-layout.md; docker's image specification v1.2, "Combined Image JSON + Filesystem Changeset".
"""

from __future__ import annotations

import os
import posixpath
import stat

from cloison.archive.budget import bad_archive, shown
from cloison.archive.decompress import decompress
from cloison.archive.headers import DIRECTORY, FILE, LINK, SYMLINK
from cloison.archive.reader import TarReader
from cloison.errors import InvalidArgument, Unsupported
from cloison.images.layout import StoredImage, store_image
from cloison.model.reference import parse_reference
from cloison.oci.fields import Fields
from cloison.oci.image import Descriptor, Index, parse_config, parse_manifest
from cloison.oci.strict import MAX_DOCUMENT_BYTES, parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.archive.decompress import Readable
    from cloison.archive.headers import Entry
    from cloison.model.reference import Reference
    from cloison.store.blobs import Blobs

_PIECE_BYTES = 1 << 20
_MAX_MEMBERS = 100_000
_MAX_IMAGES = 1000
_MAX_HOPS = 8
_MAX_DEPTH = 3
# where tools put an image's name; containerd's is the complete one
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


def read_archive(stream: Readable, *, blobs: Blobs, machine: str) -> Sequence[StoredImage]:
    """Every image of the archive; of a multi-platform one those of ``machine`` (its architecture).

    What came with the archive and belongs to no image stays as a blob: somebody may count on it already, so it is the
    caller's to collect.  Raises: InvalidArgument, Unsupported, Unavailable (disk full).
    """
    archive = _Archive(blobs)
    archive.read(stream)
    return _read_docker(archive) if "manifest.json" in archive else _read_layout(archive, machine=machine)


def read_directory(path: str, *, blobs: Blobs, machine: str) -> Sequence[StoredImage]:
    """The same for an OCI layout in a directory, what `save` writes included. Raises: as `read_archive`."""
    archive = _Archive(blobs)
    archive.read_directory(path)
    if "index.json" not in archive:
        raise bad_archive(f"the directory {path} is no OCI layout: it has no index.json")
    return _read_layout(archive, machine=machine)


class _Archive:
    """The archive's files by their normalised names."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self._digests: dict[str, str] = {}
        self._links: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._digests

    def read(self, stream: Readable) -> None:
        reader = TarReader(decompress(stream))
        for entry in reader:
            if reader.entries > _MAX_MEMBERS:
                raise bad_archive(f"more than {_MAX_MEMBERS} members")
            self._read_member(entry, reader)

    def read_directory(self, path: str) -> None:
        """What a layout consists of (image-layout.md, "Content")."""
        names = ["index.json"]
        for algorithm in ("sha256", "sha512"):
            directory = f"blobs/{algorithm}"
            if os.path.isdir(f"{path}/{directory}"):
                names += [f"{directory}/{name}" for name in sorted(os.listdir(f"{path}/{directory}"))]
        for name in names:
            try:
                fd = os.open(f"{path}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            except OSError as err:
                raise InvalidArgument(f"open {path}/{name}", why=os.strerror(err.errno or 0).lower()) from err
            with os.fdopen(fd, "rb") as file, self.blobs.collector() as out:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise bad_archive(f"{name} is no regular file")
                while piece := file.read(_PIECE_BYTES):
                    out.write(piece)
            self._digests[name] = out.digest

    def _read_member(self, entry: Entry, reader: TarReader) -> None:
        name = normal_name(entry.name)
        if entry.kind == FILE and entry.extents is None:
            with self.blobs.collector() as out:
                for piece in reader.pieces():
                    out.write(piece)
            self._digests[name] = out.digest
        elif entry.kind == SYMLINK:
            # older docker writes a layer once, and links to it from other images
            self._links[name] = normal_name(posixpath.join(posixpath.dirname(name).encode(), entry.link), inside=False)
        elif entry.kind == LINK:
            self._links[name] = normal_name(entry.link)
        elif entry.kind != DIRECTORY:
            raise bad_archive(f"{shown(entry.name)} is no regular file")

    def digest(self, name: str) -> str:
        """Digest of a file's content. Raises: InvalidArgument."""
        wanted = normal_name(name.encode(errors="surrogateescape"))
        for _hop in range(_MAX_HOPS):
            if wanted in self._digests:
                return self._digests[wanted]
            if wanted not in self._links:
                break
            wanted = self._links[wanted]
        raise bad_archive(f"it has no file {shown(name.encode(errors='surrogateescape'))}")

    def content(self, name: str) -> bytes:
        return self.blobs.read(self.digest(name), MAX_DOCUMENT_BYTES)

    def blob(self, descriptor: Descriptor) -> bytes:
        """A document of an OCI layout. Raises: InvalidArgument."""
        self.check(descriptor)
        return self.blobs.read(descriptor.digest, MAX_DOCUMENT_BYTES)

    def check(self, descriptor: Descriptor) -> None:
        """Whether the archive brought the descriptor's blob, or the store has it. Raises: InvalidArgument."""
        if not self.blobs.has(descriptor.digest):
            raise bad_archive(f"blob {descriptor.digest} is missing, or its content is another")
        if self.blobs.size(descriptor.digest) != descriptor.size:
            raise bad_archive(f"blob {descriptor.digest} has not {descriptor.size} bytes")


def normal_name(name: bytes, *, inside: bool = True) -> str:
    """A key for a member's name. Raises: InvalidArgument for one that leaves the archive."""
    text = posixpath.normpath(name.decode(errors="surrogateescape"))
    if text.startswith(("/", "../")) or text == "..":
        if inside:
            raise bad_archive(f"the name {shown(name)} leaves the archive")
        return ""  # a link to nowhere: an error once somebody follows it
    return text


def _read_docker(archive: _Archive) -> Sequence[StoredImage]:
    value = parse_json(archive.content("manifest.json"), document="manifest.json")
    entries = Fields({"images": value}, document="manifest.json").objects("images", lambda e: e, limit=_MAX_IMAGES)
    return [_read_docker_image(entry, archive) for entry in entries]


def _read_docker_image(entry: Fields, archive: _Archive) -> StoredImage:
    config = archive.content(entry.text("Config"))
    layers = [archive.digest(name) for name in entry.texts("Layers")]
    if len(layers) != len(parse_config(config).diff_ids):
        raise bad_archive("the configuration and manifest.json differ in layers")
    references = [_parse_tag(tag) for tag in entry.texts("RepoTags")]
    return store_image(config, layers, blobs=archive.blobs, references=references)


def _parse_tag(text: str) -> Reference:
    reference = parse_reference(text)
    if reference.digest:
        raise InvalidArgument(f"cannot load {text}", why="an archive may not claim a digest as its name")
    return reference


def _read_layout(archive: _Archive, *, machine: str) -> Sequence[StoredImage]:
    if "index.json" not in archive:
        if "repositories" in archive:
            raise Unsupported("cannot load this archive", why="it is of docker before 1.10 (no manifest.json)")
        raise bad_archive("it is neither a docker-archive (manifest.json) nor an OCI layout (index.json)")
    index = parse_manifest(archive.content("index.json"))
    if not isinstance(index, Index):
        raise bad_archive("its index.json is not an image index")
    images: list[StoredImage] = []
    for descriptor in index.manifests:
        images += _read_descriptor(descriptor, archive, machine=machine, depth=0)
    if not images:
        raise bad_archive(f"it has no image for {machine}")
    return images


def _read_descriptor(descriptor: Descriptor, archive: _Archive, *, machine: str, depth: int) -> list[StoredImage]:
    platform = descriptor.platform
    if depth > _MAX_DEPTH or (platform is not None and platform.architecture not in ("", machine)):
        return []
    document = parse_manifest(archive.blob(descriptor), media_type=descriptor.media_type)
    if isinstance(document, Index):
        members = [_read_descriptor(item, archive, machine=machine, depth=depth + 1) for item in document.manifests]
        # the first that fits is the one for this machine; its name is that of the index
        image = next((found[0] for found in members if found), None)
        return [image.replace(references=_names(descriptor) or image.references)] if image else []
    config = archive.blob(document.config)
    for layer in document.layers:
        archive.check(layer)
    if len(document.layers) != len(parse_config(config).diff_ids):
        raise bad_archive("a configuration and its manifest differ in layers")
    image = StoredImage(
        manifest_digest=descriptor.digest, config_digest=document.config.digest, config=config,
        layers=document.layers, references=_names(descriptor),
    )  # fmt: skip
    return [image]


def _names(descriptor: Descriptor) -> tuple[Reference, ...]:
    """The name in the annotations; a bare tag, which the specification allows too, names no image here."""
    for annotation in _NAME_ANNOTATIONS:
        text = descriptor.annotations.get(annotation, "")
        if "/" in text or ":" in text:
            return (_parse_tag(text),)
    return ()
