"""The use-cases of manifest lists: made of images that registries have, annotated, pushed."""

from __future__ import annotations

from cloison.engine.remote import small_blob
from cloison.engine.transports import Place, open_source, parse_place
from cloison.errors import InvalidArgument
from cloison.images.copy_places import RegistryTarget
from cloison.images.copying import copy
from cloison.images.lists import ListEntry, ListStore, ManifestList
from cloison.images.progress import NoProgress
from cloison.images.reach import Reach
from cloison.model.reference import parse_reference
from cloison.oci.image import Descriptor, Index, Platform, parse_config, parse_manifest
from cloison.registry.upload import Uploader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloison.images.copying import Source
    from cloison.images.progress import Progress
    from cloison.model.settings import Access, Settings
    from cloison.registry.client import ManifestAnswer


class Manifests:
    """Manifest lists of one data root. An image is named by its reference, ``docker://`` before it or not."""

    def __init__(self, settings: Settings, *, warn: Callable[[str], None] | None = None) -> None:
        self._settings = settings
        self._warn = warn
        self._lists = ListStore(settings.data_root)

    def create(
        self, name: str, images: Sequence[str] = (), *, amend: bool = False, access: Access | None = None
    ) -> ManifestList:
        """A list of these images, which may be none; an index stands for its members.

        Raises: Conflict (it exists, and ``amend`` is not wanted), NotFound, Denied, Unavailable.
        """
        self._open()
        entries = tuple(entry for image in images for entry in self._describe(image, access))
        reference = parse_reference(name).canonical
        return self._lists.create(ManifestList(reference=reference).add(entries), amend=amend)

    def add(
        self, name: str, images: Sequence[str], *, changes: Mapping[str, object] | None = None,
        access: Access | None = None,
    ) -> ManifestList:  # fmt: skip
        """More members, each described as `annotate` has it. Raises: NotFound, Denied, Unavailable."""
        entries = [entry for image in images for entry in self._describe(image, access)]

        def change(known: ManifestList) -> ManifestList:
            known = known.add(entries)
            for entry in entries if changes else ():
                known = known.annotate(entry.descriptor.digest, changes or {})
            return known

        return self._lists.change(name, change)

    def annotate(
        self, name: str, image: str, *, changes: Mapping[str, object], access: Access | None = None
    ) -> ManifestList:
        """Other words about a member: ``os architecture variant os_version os_features annotations``.

        ``image`` is a member's digest, or a reference that leads to it. Raises: NotFound.
        """
        digest = image
        if not image.startswith("sha256:"):
            (first, *more) = self._describe(image, access)
            if more:
                raise InvalidArgument(f"cannot annotate {image}", why="it has several members: name one by its digest")
            digest = first.descriptor.digest
        return self._lists.change(name, lambda known: known.annotate(digest, changes))

    def drop(self, name: str, digest: str) -> ManifestList:
        """Take a member out. Raises: NotFound."""
        return self._lists.change(name, lambda known: known.without(digest))

    def find(self, name: str) -> ManifestList:
        """Raises: NotFound."""
        return self._lists.find(name)

    def remove(self, name: str) -> None:
        """Forget a list; what was pushed stays. Raises: NotFound."""
        self._lists.remove(name)

    def push(
        self, name: str, target: str = "", *, purge: bool = False, access: Access | None = None,
        progress: Progress | None = None,
    ) -> str:  # fmt: skip
        """Push a list, and the members that the repository does not have; its digest there.

        Raises: NotFound, Denied, Unavailable, InvalidArgument (it has no members).
        """
        known = self._lists.find(name)
        if not known.entries:
            raise InvalidArgument(f"cannot push {name}", why="it has no members")
        reference = parse_reference(target.removeprefix("docker://") or name)
        news = progress or NoProgress()
        reach = Reach(self._settings, access=access, warn=self._warn)
        for entry in known.entries:
            source = parse_reference(entry.source)
            member = reference.replace(tag="", digest=entry.descriptor.digest)
            same = source.domain == reference.domain and source.path != reference.path
            mounts = [source.path] if same else []
            place = Place(transport="docker", name=entry.source)
            with (
                open_source(place, settings=self._settings, reach=reach, progress=news) as origin,
                reach.writer(member, mounts=mounts) as client,
            ):
                target_place = RegistryTarget(member, client, mounts=mounts)
                copy(origin, target_place, name=entry.source, every_platform=True, progress=news)
        body = known.render()
        media_type = parse_manifest(body).media_type
        with reach.writer(reference) as client:
            digest = Uploader(client).put_manifest(body, media_type=media_type, name=reference.tag)
        if purge:
            self._lists.remove(name)
        return digest

    def _open(self) -> None:
        from cloison.engine.garbage import open_store

        open_store(self._settings)

    def _describe(self, text: str, access: Access | None) -> list[ListEntry]:
        """The members that an image brings: itself, or those of an index that say their platform."""
        reach = Reach(self._settings, access=access, warn=self._warn)
        place = parse_place(text if text.startswith("docker://") else f"docker://{text}")
        reference = reach.candidates(place.name)[0]
        with open_source(place, settings=self._settings, reach=reach) as source:
            top = source.manifest()
            document = parse_manifest(top.body, media_type=top.media_type)
            if isinstance(document, Index):
                members = [item for item in document.manifests if item.platform and item.platform.os != "unknown"]
                found = [item.replace(annotations={}) for item in members]
            else:
                found = [_described(source, top, document.config)]
        return [ListEntry(source=f"{reference.canonical_name}@{item.digest}", descriptor=item) for item in found]


def _described(source: Source, answer: ManifestAnswer, config: Descriptor) -> Descriptor:
    """An image's descriptor with the platform that its configuration says."""
    document = parse_config(small_blob(source, config))
    platform = Platform(os=document.os, architecture=document.architecture, variant=document.variant)
    return Descriptor(
        media_type=answer.media_type, digest=answer.digest, size=len(answer.body), platform=platform
    )  # fmt: skip
