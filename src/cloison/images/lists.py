"""Manifest lists being put together: named, kept until they are pushed or removed, one small file each."""

from __future__ import annotations

import os

from cloison.errors import Conflict, InvalidArgument, NotFound
from cloison.model.record import Record, from_plain, to_plain
from cloison.model.reference import parse_reference
from cloison.oci.image import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, Descriptor, Index, Platform, render_index
from cloison.store import json
from cloison.store.atomic import make_private_directory, read_file, write_file
from cloison.store.locks import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, ClassVar


class ListEntry(Record):
    """One member: where its manifest is (``docker.io/library/debian@sha256:…``), and how the list describes it."""

    source: str
    descriptor: Descriptor

    NESTED: ClassVar[Mapping[str, Any]] = {"descriptor": Descriptor}


class ManifestList(Record):
    """A list under its name, a whole reference."""

    reference: str
    entries: tuple[ListEntry, ...] = ()
    version: int = 1

    NESTED: ClassVar[Mapping[str, Any]] = {"entries": ListEntry}

    def render(self) -> bytes:
        """The index: Docker's kind where all members are Docker's, which has no annotations, else OCI's."""
        members = tuple(entry.descriptor for entry in self.entries)
        is_docker = bool(members) and all(
            member.media_type == DOCKER_MANIFEST and not member.annotations for member in members
        )
        return render_index(Index(manifests=members, media_type=DOCKER_INDEX if is_docker else OCI_INDEX))

    def add(self, entries: Sequence[ListEntry]) -> ManifestList:
        """With these members, each once."""
        known = {entry.descriptor.digest: entry for entry in (*self.entries, *entries)}
        return self.replace(entries=tuple(known.values()))

    def annotate(self, digest: str, changes: Mapping[str, object]) -> ManifestList:
        """With other words about one member's platform, and more ``annotations``. Raises: NotFound."""
        entry = self.entry(digest)
        old = entry.descriptor
        words = {key: value for key, value in changes.items() if key != "annotations"}
        more = changes.get("annotations", {})
        assert isinstance(more, dict)
        platform = (old.platform or Platform(architecture="", os="linux")).replace(**words)
        changed = entry.replace(
            descriptor=old.replace(platform=platform, annotations={**old.annotations, **more})
        )  # fmt: skip
        return self.replace(entries=tuple(changed if item is entry else item for item in self.entries))

    def without(self, digest: str) -> ManifestList:
        """Raises: NotFound."""
        gone = self.entry(digest)
        return self.replace(entries=tuple(item for item in self.entries if item is not gone))

    def entry(self, name: str) -> ListEntry:
        """The member of a digest, or of a reference that leads to it. Raises: NotFound."""
        for item in self.entries:
            if name in (item.descriptor.digest, item.source):
                return item
        raise NotFound(f"manifest for image {name} does not exist in {parse_reference(self.reference).familiar}")


class ListStore:
    """The lists of one data root: ``images/lists/<reference, "/" as "%">``."""

    def __init__(self, data_root: str) -> None:
        self._root = f"{data_root}/images/lists"

    def find(self, name: str) -> ManifestList:
        """Raises: NotFound, InvalidArgument."""
        try:
            value = json.loads(read_file(self._path(name)))
        except FileNotFoundError:
            raise NotFound(f"No such manifest: {parse_reference(name).familiar}") from None
        except ValueError as err:
            raise InvalidArgument(f"the manifest list {name} is damaged", why=str(err)) from None
        return from_plain(ManifestList, value)

    def create(self, value: ManifestList, *, amend: bool) -> ManifestList:
        """Raises: Conflict when there is one already, unless its members are to be kept."""
        with self._lock():
            try:
                known = self.find(value.reference)
            except NotFound:
                known = None
            if known is not None and not amend:
                raise Conflict(f"manifest list {value.reference} exists already", hint="--amend adds to it")
            return self._write(known.add(value.entries) if known else value)

    def change(self, name: str, change: Callable[[ManifestList], ManifestList]) -> ManifestList:
        """Raises: NotFound, and what ``change`` raises."""
        with self._lock():
            return self._write(change(self.find(name)))

    def remove(self, name: str) -> None:
        """Raises: NotFound."""
        try:
            os.unlink(self._path(name))
        except FileNotFoundError:
            raise NotFound(f"No such manifest: {parse_reference(name).familiar}") from None

    def _write(self, value: ManifestList) -> ManifestList:
        write_file(self._path(value.reference), json.dumps(to_plain(value)), durable=True)
        return value

    def _path(self, name: str) -> str:
        reference = parse_reference(name)
        if reference.digest:
            raise InvalidArgument(f"cannot name a manifest list {name}", why="a digest follows from the content")
        text = reference.canonical
        if len(text) > 200:
            raise InvalidArgument(f"cannot name a manifest list {text[:60]}…", why="longer than 200 characters")
        return f"{self._root}/{text.replace('/', '%')}"

    def _lock(self) -> Lock:
        make_private_directory(self._root)
        return Lock(f"{self._root}/.lock")
