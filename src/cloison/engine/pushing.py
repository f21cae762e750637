"""Images of the local store to registries: what `push` does."""

from __future__ import annotations

from cloison.engine.restoring import restore_layers
from cloison.errors import CloisonError, InvalidArgument, NotFound
from cloison.images.conversion import check_form
from cloison.images.copy_places import RegistryTarget, StoreSource
from cloison.images.copying import copy
from cloison.images.progress import NoProgress
from cloison.images.reach import Reach
from cloison.model.reference import parse_reference
from cloison.oci.image import Index, Manifest, Platform, parse_manifest
from cloison.registry.platforms import choose, parse_platform, render_platform, runs_on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.images.progress import Progress
    from cloison.images.records import ImageStore
    from cloison.model.image import Image
    from cloison.model.reference import Reference
    from cloison.model.settings import Access, Settings
    from cloison.registry.client import ManifestAnswer
    from cloison.store.blobs import Blobs


class Pusher:
    """Pushes images of one store."""

    def __init__(
        self, settings: Settings, *, store: ImageStore, blobs: Blobs, access: Access | None = None,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._store = store
        self._blobs = blobs
        self._access = access
        self._progress = progress or NoProgress()
        self._reach = Reach(settings, access=access, warn=self._progress.message)

    def push(self, text: str, *, target: str = "", platform: str = "", form: str = "") -> str:
        """Push the image of a name to where the name says, or to ``target``; the digest that it has there.

        An index that is here with all its members is pushed whole, unless one ``platform`` is wanted; ``form`` makes
        manifests ``oci`` or ``v2s2``. Raises: NotFound, InvalidArgument, Denied, Unavailable.
        """
        check_form(form)
        reference = parse_reference(target or text)
        if reference.digest:
            raise InvalidArgument(f"cannot push {text}", why="a digest follows from the content: push a tag")
        image = self._find(text, by_id=bool(target))
        self._progress.message(f"The push refers to repository [{reference.canonical_name}]")
        restore_layers(
            image, self._blobs, settings=self._settings, access=self._access, progress=self._progress
        )  # fmt: skip
        top = self._digest_to_push(image, platform=platform, name=text)
        pushed = self._copy(top, reference, image, form=form)
        self._store.put(image.replace(repo_digests=(f"{reference.canonical_name}@{pushed.digest}",)))
        self._progress.message(f"{reference.tag}: digest: {pushed.digest} size: {len(pushed.body)}")
        return pushed.digest

    def _find(self, text: str, *, by_id: bool) -> Image:
        wanted = parse_reference(text)
        try:
            return self._store.find(text if by_id else wanted.canonical)
        except NotFound:
            raise NotFound(f"An image does not exist locally with the tag: {wanted.familiar_name}") from None

    def digest_of(self, text: str) -> str:
        """The manifest or index of an image that is here, by any of its names. Raises: NotFound, Conflict."""
        return self._digest_to_push(self._store.find(text), platform="", name=text)

    def tags(self, text: str) -> Sequence[str]:
        """All local names of one repository. Raises: NotFound, InvalidArgument."""
        wanted = parse_reference(text)
        if wanted.familiar_name != text and wanted.canonical_name != text:
            raise InvalidArgument("tag can't be used with --all-tags/-a")
        names = [parse_reference(item.reference) for item in self._store.list() if item.reference]
        found = [name.canonical for name in names if name.canonical_name == wanted.canonical_name and name.tag]
        if not found:
            raise NotFound(f"An image does not exist locally with the tag: {wanted.familiar_name}")
        return sorted(found)

    def _copy(self, digest: str, reference: Reference, image: Image, *, form: str) -> ManifestAnswer:
        known = [name.partition("@")[0].partition("/") for name in image.repo_digests]
        mounts = [path for domain, _, path in known if domain == reference.domain and path != reference.path]
        with self._reach.writer(reference, mounts=mounts) as client:
            target = RegistryTarget(reference, client, mounts=mounts, verify=False)
            source = StoreSource(digest, blobs=self._blobs)
            return copy(
                source, target, name=reference.familiar, every_platform=True, form=form, progress=self._progress
            )  # fmt: skip

    def _digest_to_push(self, image: Image, *, platform: str, name: str) -> str:
        wanted = parse_platform(platform) if platform else None
        for digest in (repo_digest.partition("@")[2] for repo_digest in image.repo_digests):
            index = self._whole_index(digest)
            if index is not None:
                return choose(index.manifests, wanted, name=name).digest if wanted else digest
        actual = Platform(os=image.os, architecture=image.architecture, variant=image.variant)
        if wanted and not runs_on(actual, wanted):
            raise NotFound(
                f"no image for platform {render_platform(wanted)} in {name}", why=f"it is for {render_platform(actual)}"
            )
        return image.digest

    def _whole_index(self, digest: str) -> Index | None:
        """The index of this digest, if it and all that belongs to it is in the store."""
        try:
            document = parse_manifest(self._blobs.read(digest))
        except CloisonError:
            return None
        if not isinstance(document, Index):
            return None
        return document if all(self._is_whole(member.digest) for member in document.manifests) else None

    def _is_whole(self, digest: str) -> bool:
        try:
            document = parse_manifest(self._blobs.read(digest))
        except CloisonError:
            return False
        if isinstance(document, Manifest):
            return all(self._blobs.has(blob.digest) for blob in (document.config, *document.layers))
        return all(self._is_whole(member.digest) for member in document.manifests)
