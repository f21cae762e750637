"""What `pull` does: whether the image here is the registry's still, by one HEAD; if not, its blobs into the store."""

from __future__ import annotations

from cloison.errors import CloisonError, Denied, NotFound, Unsupported
from cloison.images.mirrors import Mirrored
from cloison.images.progress import NoProgress
from cloison.images.reach import Reach
from cloison.oci.image import Index, Platform, parse_manifest
from cloison.registry.platforms import choose, parse_platform, runs_on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloison.images.layout import StoredImage
    from cloison.images.progress import Progress
    from cloison.images.pull import Fetched, Pull
    from cloison.images.records import ImageStore
    from cloison.model.image import Image
    from cloison.model.reference import Reference
    from cloison.model.settings import Access, Settings
    from cloison.store.blobs import Blobs


class Puller:
    """One pull; afterwards ``digest`` is what the registry calls the image, ``reference`` where it was found."""

    def __init__(
        self, settings: Settings, *, store: ImageStore, blobs: Blobs, access: Access | None = None,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._store = store
        self._blobs = blobs
        self._access = access
        self.progress = progress or NoProgress()
        self._reach = Reach(settings, access=access, warn=self.progress.message, choose=self.progress.choose)
        self.reference: Reference
        self.digest = ""
        self._before = ""  # the id of the image that had the name

    def current(self, text: str, *, platform: str) -> Image | None:
        """The image that is here, if it is what the registry would give; an image by its digest always is.

        Raises: NotFound, Denied, Unavailable: what a pull would fail with, too.
        """
        wanted = parse_platform(platform)
        for reference in self._reach.candidates(text):
            try:
                image = self._store.find((reference.replace(tag="") if reference.digest else reference).canonical)
            except NotFound:
                continue
            digest = reference.digest or self._ask(reference)
            known = f"{reference.canonical_name}@{digest}" in image.repo_digests
            if known and self._is_choice(image, digest, wanted) and self._is_whole(image):
                if reference.digest:  # it may have been pulled by its tag: from now on it has this name, too
                    self._store.put(image, reference.replace(tag=""))
                self.reference, self.digest, self._before = reference, digest, image.id
                self.progress.message(f"{reference.digest or reference.tag}: Pulling from {reference.path}")
                return image
        return None

    def _ask(self, reference: Reference) -> str:
        try:
            with Mirrored(self._reach.readers(reference), say=self.progress.message) as client:
                return client.digest(reference)
        except Unsupported:
            return ""  # a registry without HEAD

    def _is_choice(self, image: Image, digest: str, wanted: Platform) -> bool:
        """Whether this image is the one that a pull would choose for the platform."""
        if digest != image.digest:
            try:
                index = parse_manifest(self._blobs.read(digest))
                return isinstance(index, Index) and choose(index.manifests, wanted, name="").digest == image.digest
            except CloisonError:
                return False
        return runs_on(Platform(os=image.os, architecture=image.architecture, variant=image.variant), wanted)

    def _is_whole(self, image: Image) -> bool:
        """Whether its documents are undamaged and its layers unpacked."""
        from cloison.snapshots.drivers import open_snapshots

        try:
            for digest in (image.id, image.digest):
                self._blobs.read(digest)
        except CloisonError:
            return False
        snapshots = open_snapshots(self._settings)
        return all(snapshots.has(layer) for layer in image.layers)

    def begin(self, text: str, *, platform: str, every_platform: bool) -> Pull:
        """Let come what ``text`` names; the caller leaves the context of what is given back."""
        from cloison.images.pull import Pull

        self._before = self._id_of(text)
        *others, last = self._reach.candidates(text)
        for reference in (*others, last):
            pull = Pull(
                reference, blobs=self._blobs, settings=self._settings, platform=platform, access=self._access,
                progress=self.progress, every_platform=every_platform, is_unpacked=self._unpacked(every_platform),
            )  # fmt: skip
            try:
                pull.begin()
                break
            except (NotFound, Denied):
                if reference is last:
                    raise
        self.reference, self.digest = reference, pull.fetched.digest
        return pull

    def stored(self, fetched: Fetched) -> tuple[StoredImage, tuple[str, ...]]:
        """The image, and what the registry calls it."""
        from cloison.images.layout import StoredImage

        reference = self.reference
        stored = StoredImage(
            manifest_digest=fetched.manifest_digest, config_digest=fetched.config_digest, config=fetched.config,
            layers=fetched.layers, references=(reference.replace(tag="") if reference.digest else reference,),
        )  # fmt: skip
        return stored, (f"{reference.canonical_name}@{fetched.digest}",)

    def _unpacked(self, every_platform: bool) -> Callable[[str], bool] | None:
        """What tells of layers that need not be fetched; None where compressed layers are kept."""
        if every_platform or not self._settings.drop_layer_blobs:
            return None
        from cloison.snapshots.drivers import open_snapshots

        return open_snapshots(self._settings).has

    def tell(self, image: Image) -> None:
        """The last lines, as docker has them; what its user chose for a short name is kept."""
        self._reach.remember()
        self.progress.message(f"Digest: {self.digest}")
        status = "Image is up to date" if image.id == self._before else "Downloaded newer image"
        self.progress.message(f"Status: {status} for {self.reference.familiar}")

    def _id_of(self, text: str) -> str:
        """The id of the image that has the name now, or ""."""
        for reference in self._reach.candidates(text):
            try:
                return self._store.find(reference.canonical).id
            except NotFound:
                continue
        return ""
