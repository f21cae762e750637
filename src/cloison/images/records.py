"""Images on disk: one small file a reference, one record an image. Files are the truth; there is no index to corrupt.

    images/names/<reference, "/" as "%">     {"version": 1, "reference": canonical, "image": id}
    images/records/<hex of the id>           the `Image` as JSON
    images/lock                              held while references or records change; shared by whoever relies on them

A record without references is a dangling image. `find` is on the hot path: two reads, no lock, no directory scan.
"""

from __future__ import annotations

import os

from cloison.errors import CloisonError, Conflict, InvalidArgument, NotFound, Unavailable
from cloison.images.removal import ImageUse, Removal, familiar, in_use, repository, same_names, short
from cloison.model.digest import is_digest
from cloison.model.image import Image, ImageListing
from cloison.model.record import from_plain, to_plain
from cloison.model.reference import Reference, parse_reference
from cloison.store import json
from cloison.store.atomic import disk_error, make_private_directory, read_file, sync_directory, write_file
from cloison.store.locks import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_HEX = "0123456789abcdef"
_MAX_NAME = 200
_VERSION = 1


class ImageStore:
    """The images of one data root. Thread-safe and process-safe."""

    def __init__(self, data_root: str) -> None:
        self._root = f"{data_root}/images"
        self._names = f"{self._root}/names"
        self._records = f"{self._root}/records"

    def lock(self, *, shared: bool = False) -> Lock:
        """Shared: references, records and layers stay while it is held. Exclusive: they are about to change."""
        if not shared or not os.path.isdir(self._root):
            self._make_directories()
        return _lock(f"{self._root}/lock", shared=shared, wait=True)

    def _make_directories(self) -> None:
        for path in (self._names, self._records):
            make_private_directory(path)

    def incoming(self, *, wait: bool = True) -> Lock:
        """Shared by whoever brings blobs and layers that no record names yet; see `no_incoming`."""
        return self._incoming_lock(shared=True, wait=wait)

    def no_incoming(self) -> Lock | None:
        """Held while what no record names is removed; None when something is coming in at this moment."""
        try:
            return self._incoming_lock(shared=False, wait=False)
        except BlockingIOError:
            return None

    def _incoming_lock(self, *, shared: bool, wait: bool) -> Lock:
        self._make_directories()
        return _lock(f"{self._root}/incoming.lock", shared=shared, wait=wait)

    def sweep(self) -> None:
        """Remove files that a crash kept from getting their names; the caller holds the lock, so nobody writes now."""
        for folder in (self._root, self._names, self._records):
            for name in _listdir(folder):
                if name.endswith(".tmp") and not (folder == self._names and self._is_name(name)):
                    _unlink(f"{folder}/{name}")

    def ask_for_collection(self) -> None:
        """Let whoever brings something in at this moment clean up at its end."""
        write_file(f"{self._root}/collect", b"", durable=False)

    def forget_collection(self) -> None:
        _unlink(f"{self._root}/collect")

    @property
    def wants_collection(self) -> bool:
        return os.path.exists(f"{self._root}/collect")

    def touch(self, image_id: str) -> None:
        """The image is being used; see `last_used_ns`."""
        try:
            os.utime(self._record_path(image_id))
        except OSError:  # removed, or a read-only disk: it is for the order of pruning alone
            pass

    def last_used_ns(self, image_id: str) -> int:
        """When it was brought, named, or a container was made from it; 0 for one that is not there."""
        try:
            return os.stat(self._record_path(image_id)).st_mtime_ns
        except FileNotFoundError:
            return 0

    def paths_of(self, image_id: str) -> Sequence[str]:
        """The files that say what an image is, and its names."""
        return [self._record_path(image_id), *map(self._name_path, self.references_of(image_id))]

    # -- finding

    def find(self, text: str) -> Image:
        """The image that a user's words name: a reference, an id, or the unique beginning of one.

        Raises: InvalidArgument, NotFound, Conflict when several ids begin so.
        """
        return self._resolve(text)[0]

    def _resolve(self, text: str) -> tuple[Image, Reference | None]:
        """The image, and the reference by which it was found (None: by its id)."""
        reference = _try_reference(text)
        image = self._by_reference(reference) if reference else None
        if image is not None:
            return image, reference
        image = self._by_id(text)
        if image is None:
            raise NotFound(f"No such image: {reference.familiar if reference else text}")
        return image, None

    def _by_reference(self, reference: Reference) -> Image | None:
        if reference.digest:
            # docker's rule: with both, the digest decides
            reference = reference.replace(tag="")
        image_id = self._read_name(reference)
        if image_id:
            return self._read_record(image_id)
        return self._by_digest(reference) if reference.digest else None

    def _by_digest(self, reference: Reference) -> Image | None:
        """An image that was pulled by its tag: by the digest of the index that the tag named, or its manifest's."""
        for item in self.list():
            image = item.image
            if reference.canonical in image.repo_digests:
                return image
            if reference.digest == image.digest and reference.canonical_name in map(repository, image.repo_digests):
                return image
        return None

    def _by_id(self, text: str) -> Image | None:
        prefix = text.removeprefix("sha256:")
        if not prefix or prefix.strip(_HEX) or len(prefix) > 64:
            return None
        if len(prefix) == 64:
            return self._read_record(f"sha256:{prefix}")
        matches = [name for name in _listdir(self._records) if name.startswith(prefix) and len(name) == 64]
        if len(matches) > 1:
            raise Conflict(f"ambiguous image: {text}", why=f"{len(matches)} ids begin so")
        return self._read_record(f"sha256:{matches[0]}") if matches else None

    def list(self) -> Sequence[ImageListing]:
        """Every reference with its image, and every dangling image; newest first, then by name."""
        listings = []
        named = set()
        for reference, image_id in self._all_names():
            image = self._read_record(image_id)
            if image is not None:
                named.add(image_id)
                listings.append(ImageListing(reference=reference.familiar, image=image))
        for name in _listdir(self._records):
            image = self._read_record(f"sha256:{name}") if len(name) == 64 and f"sha256:{name}" not in named else None
            if image is not None:
                listings.append(ImageListing(reference="", image=image))
        listings.sort(key=lambda listing: (not listing.reference, listing.reference))
        listings.sort(key=lambda listing: listing.image.created, reverse=True)
        return listings

    def choose(self, names: Sequence[str]) -> Sequence[tuple[Image, tuple[Reference, ...]]]:
        """Images for an archive, each once, with the names that it shall have there, in the order of ``names``.

        A reference stands for itself, one without a tag for all of its repository, an id for an image without a name.
        Raises: as `find`.
        """
        chosen: dict[str, tuple[Image, dict[Reference, None]]] = {}
        for text in names:
            for image, reference in self._repository(text) or (self._resolve(text),):
                _image, references = chosen.setdefault(image.id, (image, {}))
                if reference is not None and reference.tag:
                    references[reference.replace(digest="")] = None
        return [(image, tuple(references)) for image, references in chosen.values()]

    def _repository(self, text: str) -> Sequence[tuple[Image, Reference | None]]:
        """Every tag of a repository that is named without one."""
        wanted = _try_reference(text)
        if wanted is None or wanted.digest or ":" in text.rpartition("/")[2]:
            return []
        found: list[tuple[Image, Reference | None]] = []
        for reference, image_id in sorted(self._all_names(), key=lambda pair: pair[0].canonical):
            image = self._read_record(image_id) if reference.canonical_name == wanted.canonical_name else None
            if image is not None and reference.tag:
                found.append((image, reference))
        return found

    def damaged(self) -> Iterator[tuple[str, str]]:
        """Files of names and records that say nothing, and why; in this order, for a name leads to a record."""
        for folder in (self._records, self._names):
            for name in sorted(_listdir(folder)):
                why = "" if name.endswith(".tmp") else self._damage(f"{folder}/{name}")
                if why:
                    yield f"{folder}/{name}", why

    def _damage(self, path: str) -> str:
        try:
            value = _read_json(path)
            if value is None:
                return ""
            if path.startswith(f"{self._records}/"):
                image = from_plain(Image, value)
                return "" if path == self._record_path(image.id) else "it is another image's"
            if path != self._name_path(parse_reference(str(value["reference"]))):
                return "it is another name's"
            return "" if self._read_record(str(value["image"])) else "its image is missing"
        except (CloisonError, KeyError, TypeError, ValueError):
            return "it is damaged"

    def references_of(self, image_id: str) -> tuple[Reference, ...]:
        """All references of one image, by name."""
        found = [reference for reference, owner in self._all_names() if owner == image_id]
        return tuple(sorted(found, key=lambda reference: reference.canonical))

    # -- changing

    def put(self, image: Image, reference: Reference | None = None) -> None:
        """Publish an image, then its name; an older owner of the name becomes dangling. Raises: Unavailable, Denied."""
        with self.lock():
            known = self._read_record(image.id)
            if known is not None:
                image = image.replace(repo_digests=tuple(sorted({*known.repo_digests, *image.repo_digests})))
            self._write_record(image)
            if reference is None:
                return
            try:
                self._write_name(reference, image.id)
            except BaseException:
                if known is None:  # nobody knows it yet, and without its name nobody should
                    _unlink(self._record_path(image.id))
                raise

    def tag(self, source: str, target: str) -> Reference:
        """One more name for an image. Raises: NotFound, InvalidArgument for a target with a digest."""
        reference = parse_reference(target)
        if reference.digest:
            raise InvalidArgument(f"cannot tag {target}", why="refusing to create a tag with a digest reference")
        with self.lock():
            self._write_name(reference, self.find(source).id)
        return reference

    def remove(self, text: str, *, force: bool = False, uses: Sequence[ImageUse] = ()) -> Removal:
        """Take a name away, and the image with its last name; the caller holds the lock and removes layers and blobs.

        An id stands for the image with all its names, which needs ``force`` when they are of several repositories.
        Raises: NotFound; Conflict while containers use it (``force`` ignores those that do not run).
        """
        image, reference = self._resolve(text)
        names = self.references_of(image.id)
        wanted = same_names(reference, names) if reference else ()
        if reference and len(wanted) < len(names):
            left = {name.canonical_name for name in names if name not in wanted}
            return Removal(untagged=self._remove_names(wanted) + self._forget_digests(image, repositories=left))
        if not reference and len({name.canonical_name for name in names}) > 1 and not force:
            raise Conflict(
                f"unable to delete {short(image.id)} (must be forced)",
                why="image is referenced in multiple repositories",
            )
        for use in sorted(uses, key=lambda use: not use.running):
            if use.image_id == image.id and (use.running or not force):
                raise in_use(use, text if reference else "")
        untagged = dict.fromkeys((*self._remove_names(names), *map(familiar, image.repo_digests)))
        _unlink(self._record_path(image.id))
        return Removal(untagged=tuple(untagged), deleted=image)

    def untag(self, text: str, names: Sequence[str] = ()) -> Sequence[str]:
        """Take names of an image away, all without ``names``; the image stays, without a name after its last.

        Raises: NotFound, also when a name is not that image's: nothing is taken away then.
        """
        with self.lock():
            image = self.find(text)
            own = self.references_of(image.id)
            wanted = [parse_reference(name) for name in names] or list(own)
            for reference in wanted:
                if reference not in own:
                    raise NotFound(f"{reference.familiar} is no name of image {short(image.id)}")
            return self._remove_names(wanted)

    def _forget_digests(self, image: Image, *, repositories: set[str]) -> tuple[str, ...]:
        """A registry's digests go with the last name in its repository; ``repositories`` are those with names left."""
        kept = tuple(digest for digest in image.repo_digests if repository(digest) in repositories)
        if kept == image.repo_digests:
            return ()
        self._write_record(image.replace(repo_digests=kept))
        return tuple(familiar(digest) for digest in image.repo_digests if digest not in kept)

    def _remove_names(self, names: Sequence[Reference]) -> tuple[str, ...]:
        for name in names:
            _unlink(self._name_path(name))
        if names:
            sync_directory(self._names)
        return tuple(name.familiar for name in names)

    # -- files

    def _name_path(self, reference: Reference) -> str:
        text = reference.canonical
        if len(text) > _MAX_NAME:
            import hashlib

            return f"{self._names}/{text[:100].replace('/', '%')}+{hashlib.sha256(text.encode()).hexdigest()}"
        return f"{self._names}/{text.replace('/', '%')}"

    def _record_path(self, image_id: str) -> str:
        return f"{self._records}/{image_id.removeprefix('sha256:')}"

    def _read_name(self, reference: Reference) -> str:
        """The id, or "" when there is no such name."""
        value = _read_json(self._name_path(reference))
        return str(value["image"]) if value else ""

    def _read_record(self, image_id: str) -> Image | None:
        value = _read_json(self._record_path(image_id)) if is_digest(image_id) else None
        return from_plain(Image, value) if value else None

    def _all_names(self) -> Iterator[tuple[Reference, str]]:
        for name in _listdir(self._names):
            value = None if name.endswith(".tmp") and not self._is_name(name) else _read_json(f"{self._names}/{name}")
            if value:
                yield parse_reference(str(value["reference"])), str(value["image"])

    def _is_name(self, file: str) -> bool:
        """Whether it is whole: a tag may end as temporary files do."""
        try:
            value = _read_json(f"{self._names}/{file}")
        except Unavailable:
            return False
        return (
            value is not None and self._name_path(parse_reference(str(value["reference"]))) == f"{self._names}/{file}"
        )

    def _write_record(self, image: Image) -> None:
        write_file(self._record_path(image.id), json.dumps(to_plain(image)), durable=True)

    def _write_name(self, reference: Reference, image_id: str) -> None:
        value = {"version": _VERSION, "reference": reference.canonical, "image": image_id}
        write_file(self._name_path(reference), json.dumps(value), durable=True)


def _lock(path: str, *, shared: bool, wait: bool) -> Lock:
    try:
        return Lock(path, shared=shared, wait=wait)
    except BlockingIOError:
        raise
    except OSError as err:
        raise disk_error(path, err) from err


def _read_json(path: str) -> dict[str, object] | None:
    """A file of ours, or None when it is not there. Raises: Unavailable when it is damaged."""
    try:
        value: dict[str, object] = json.loads(read_file(path))
    except FileNotFoundError:
        return None
    except OSError as err:
        raise disk_error(path, err) from err
    except ValueError as err:
        hint = "remove the file and pull the image again"
        raise Unavailable(f"cannot read {path}", why=f"damaged ({err})", hint=hint) from err
    return value


def _try_reference(text: str) -> Reference | None:
    """The reference that the words are, or None for an id: 64 hex digits, or ``sha256:`` and some."""
    hexadecimal = text.removeprefix("sha256:")
    if not hexadecimal.strip(_HEX) and (len(hexadecimal) == 64 or (hexadecimal and len(hexadecimal) < len(text))):
        return None
    return parse_reference(text)


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
