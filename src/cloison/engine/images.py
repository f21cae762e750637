"""The use-cases of images: found, brought, named, removed."""

from __future__ import annotations

from cloison.engine import garbage
from cloison.errors import InvalidArgument, NotFound
from cloison.images.records import ImageStore
from cloison.model.reference import parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloison.archive.decompress import Readable
    from cloison.archive.writer import Writable
    from cloison.engine.pruning import PruneFilter
    from cloison.engine.pushing import Pusher
    from cloison.images.progress import Progress
    from cloison.images.removal import Removal
    from cloison.model.image import FileChange, HistoryEntry, Image, ImageListing, PlatformShare
    from cloison.model.settings import Access, Settings
    from cloison.model.usage import Pruned
    from cloison.store.blobs import Blobs
    from cloison.store.locks import Lock

# made from this machine's own programs at first use, so that a first `run` needs no network
HOST_BASE = "host/base"
_HOST_BASE_CANONICAL = "docker.io/host/base:latest"


class Images:
    """Every method takes a reference, an id or a unique id prefix; safe to call from many threads and processes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = ImageStore(settings.data_root)

    # -- finding

    def find(self, text: str, *, platform: str = "") -> Image:
        """Raises: NotFound, also for an image of another than the wanted platform; Conflict (ambiguous id)."""
        self._open()
        image = self._find(text)
        if platform:
            _check_platform(image, platform, name=text)
        return image

    def _find(self, text: str) -> Image:
        try:
            return self._store.find(text)
        except NotFound:
            from cloison.engine.naming import other_names

            for name in other_names(self._settings, text):
                try:
                    return self._store.find(name)
                except NotFound:
                    continue
            raise

    def list(self) -> Sequence[ImageListing]:
        """One entry a reference, one a dangling image; newest first."""
        self._open()
        return self._store.list()

    def full_name(self, text: str) -> str:
        """The whole reference that the words mean here: a short name may be an alias. Raises: InvalidArgument."""
        from cloison.engine.naming import other_names

        try:
            self._store.find(text)
        except NotFound:
            for name in other_names(self._settings, text):
                return name
        return parse_reference(text).canonical

    def references_of(self, image: Image) -> Sequence[str]:
        """The image's names as people type them."""
        return [reference.familiar for reference in self._store.references_of(image.id)]

    def hold(self) -> Lock:
        """While it is held no image, layer or reference is removed: between finding an image and recording its use."""
        return self._store.lock(shared=True)

    def take(
        self, text: str, *, policy: str = "missing", platform: str = "", progress: Progress | None = None
    ) -> tuple[Image, Lock]:
        """`ensure` and `hold` in one: under the lock the image cannot vanish before its use is recorded."""
        while True:
            lock = self.hold()
            found = self._present(text, platform) if policy != "always" or _is_host_base(text) else None
            if found is not None:
                self._store.touch(found.id)
                return found, lock
            lock.release()  # bringing it takes the lock for itself
            self.ensure(text, policy=policy, platform=platform, progress=progress)
            policy = "missing"

    def ensure(
        self, text: str, *, policy: str = "missing", platform: str = "", progress: Progress | None = None
    ) -> Image:
        """The image to run, brought first where ``policy`` (always, missing, never) says so.

        Raises: NotFound, Unavailable (registry), InvalidArgument.
        """
        if policy not in ("always", "missing", "never"):
            raise InvalidArgument(f"invalid pull option: '{policy}'", why="not one of 'always', 'missing' and 'never'")
        found = self._present(text, platform)
        if found is not None and (policy != "always" or _is_host_base(text)):
            return found
        if _is_host_base(text):
            return self.ensure_host_base(progress=progress)
        if policy == "never":
            raise NotFound(f"No such image: {parse_reference(text).familiar}", hint="--pull never forbids to fetch it")
        if progress is not None and policy == "missing":
            progress.message(f"Unable to find image '{parse_reference(text).familiar}' locally")
        return self.pull(text, platform=platform, progress=progress)

    def _present(self, text: str, platform: str) -> Image | None:
        try:
            image = self._find(text)
        except NotFound:
            return None
        return image if not platform or _is_for(image, platform) else None

    def history(self, text: str) -> Sequence[HistoryEntry]:
        """What made each layer of an image, newest first. Raises: NotFound, Conflict, Unavailable."""
        from cloison.images.history import image_history

        return image_history(self.find(text), blobs=self._blobs)

    def platforms(self, image: Image) -> Sequence[PlatformShare]:
        """The platforms that the image's index names, and what is here of each; without an index, the image's own."""
        from cloison.engine.image_platforms import platforms_of

        return platforms_of(image, blobs=self._blobs)

    def places(self, image: Image) -> tuple[str, Sequence[str]]:
        """The snapshot driver, and the directories that an image's files are in, topmost first."""
        from cloison.snapshots.drivers import open_snapshots

        snapshots = open_snapshots(self._settings)
        return snapshots.name, snapshots.layer_directories(image.layers)

    def changes(self, old: str, new: str = "") -> Sequence[FileChange]:
        """What differs from one image to another, or, without the other, from what is below an image's last layer.

        Between two images times do not count, contents do.  Raises: NotFound, Conflict, Unavailable.
        """
        from cloison.engine import trees

        with self.hold():
            before = self.find(old)
            if not new:
                return trees.layer_changes(before.layers, settings=self._settings)
            return trees.image_changes(before.layers, self.find(new).layers, settings=self._settings)

    def layer_changes(self, text: str) -> Sequence[Sequence[FileChange]]:
        """What each layer of an image added, changed and deleted, base first. Raises: as `changes`."""
        from cloison.engine import trees

        with self.hold():
            layers = self.find(text).layers
            return [trees.layer_changes(layers[: i + 1], settings=self._settings) for i in range(len(layers))]

    def save(self, names: Sequence[str], out: Writable, *, form: str = "docker-archive", platform: str = "") -> None:
        """Write images as one tar archive; a name without a tag stands for all tags of its repository.

        Raises: NotFound, Conflict, InvalidArgument for an unknown form, Unavailable; OSError of ``out``.
        """
        from cloison.engine.restoring import restore_layers
        from cloison.images.archive_writer import write_archive

        self._open()
        with self._store.incoming():  # nothing is collected meanwhile
            saved = self._store.choose(names)
            for image, references in saved:
                if platform:
                    _check_platform(image, platform, name=references[0].familiar if references else image.id)
                restore_layers(image, self._blobs, settings=self._settings)
            write_archive(saved, out, blobs=self._blobs, form=form)
        self._clean_up()

    def mount(self, text: str) -> str:
        """Where an image's files can be looked at until `unmount`, read-only; it cannot be removed meanwhile.

        Raises: NotFound, Conflict, Unsupported.
        """
        from cloison.engine.image_mounts import mount_image

        with self.hold():
            return mount_image(self.find(text), settings=self._settings)

    def unmount(self, text: str) -> Image:
        """Raises: NotFound, also when it is not mounted; Conflict."""
        from cloison.engine.image_mounts import unmount_image

        image = self.find(text)
        unmount_image(image, settings=self._settings)
        return image

    def mounted(self) -> Mapping[str, str]:
        """Where images are mounted, by their ids."""
        from cloison.engine.image_mounts import mounted_images

        return mounted_images(self._settings)

    # -- bringing

    def pull(
        self, text: str, *, platform: str = "", every_platform: bool = False, access: Access | None = None,
        progress: Progress | None = None,
    ) -> Image:  # fmt: skip
        """Fetch from the registry that the reference names, and unpack; one HEAD when nothing has changed there.

        ``every_platform`` brings the blobs of all, and unpacks those of ``platform``. Raises: NotFound, Denied,
        Unavailable, Unsupported, InvalidArgument; nothing is visible then.
        """
        from cloison.engine.pulling import Puller

        self._open()
        puller = Puller(self._settings, store=self._store, blobs=self._blobs, access=access, progress=progress)
        current = None if every_platform else puller.current(text, platform=platform)
        if current is not None:
            puller.tell(current)
            return current
        from cloison.engine.bringing import Bringing

        with Bringing(self._settings, resumable=True) as bringing:
            with puller.begin(text, platform=platform, every_platform=every_platform) as pull:
                stored, names = puller.stored(pull.fetched)
                image = bringing.publish(stored, pull.layers, progress=puller.progress, repo_digests=names)
        puller.tell(image)
        return image

    def push(
        self, text: str, *, target: str = "", platform: str = "", form: str = "", access: Access | None = None,
        progress: Progress | None = None,
    ) -> str:  # fmt: skip
        """Push an image under its name, or to ``target``; the digest that the registry knows it by.

        ``form`` is as `Registries.copy` has it. Raises: NotFound, Denied, Unavailable, InvalidArgument.
        """
        with self._store.incoming():  # nothing is collected meanwhile
            digest = self._pusher(access, progress).push(text, target=target, platform=platform, form=form)
        self._clean_up()
        return digest

    def push_tags(self, text: str, *, access: Access | None = None, progress: Progress | None = None) -> Sequence[str]:
        """Push all names of a repository; their digests."""
        pusher = self._pusher(access, progress)
        return [self.push(name, access=access, progress=progress) for name in pusher.tags(text)]

    def _pusher(self, access: Access | None, progress: Progress | None) -> Pusher:
        from cloison.engine.pushing import Pusher

        self._open()
        return Pusher(self._settings, store=self._store, blobs=self._blobs, access=access, progress=progress)

    def load(self, source: Readable | str, *, platform: str = "") -> Sequence[str]:
        """Images of a docker-archive or an OCI layout in a tar stream, or of the layout in the directory that a string
        names; their names, or the id of one without any.

        Raises: InvalidArgument, Unsupported, Unavailable, NotFound (none is for the ``platform`` that is wanted).
        """
        from cloison.engine.making import load

        return load(source, platform=platform, settings=self._settings)

    def import_rootfs(
        self, source: Readable | str, reference: str = "", *, changes: Sequence[str] = (), message: str = "",
        platform: str = "",
    ) -> Image:  # fmt: skip
        """An image of one layer from a tar stream, or from the directory or the URL that a string names.

        ``changes`` are Dockerfile instructions, ``message`` the layer's comment, ``platform`` what its programs run on.
        Raises: InvalidArgument, NotFound, Unavailable.
        """
        from cloison.engine.making import import_rootfs

        return import_rootfs(
            source, reference, changes=changes, message=message, platform=platform, settings=self._settings
        )  # fmt: skip

    def from_host(self, name: str, commands: Sequence[str]) -> Image:
        """A minimal image of this machine's own programs: each command with all that it needs to start.

        The same programs always give the same image. Raises: NotFound for a command that is not there, InvalidArgument.
        """
        from cloison.engine.making import from_host

        return from_host(name, commands, settings=self._settings)

    def ensure_host_base(self, *, progress: Progress | None = None) -> Image:
        """`host/base`, made when it is missing; several first users wait for one maker."""
        from cloison.images.host_base import host_base_commands
        from cloison.store.locks import Lock

        self._open()
        self._store.incoming().release()  # makes the directory
        with Lock(f"{self._settings.data_root}/images/host-base.lock"):
            found = self._present(HOST_BASE, "")
            if found is not None:
                return found
            if progress is not None:
                progress.message(f"{HOST_BASE}:latest: making it from this machine's own programs")
            image = self.from_host(HOST_BASE, host_base_commands())
            if progress is not None:
                progress.message(f"{HOST_BASE}:latest: {image.size_bytes / 1e6:.1f} MB")
            return image

    # -- changing

    def tag(self, source: str, target: str) -> None:
        """One more name. Raises: NotFound, InvalidArgument."""
        self._open()
        self._store.tag(source, target)

    def untag(self, text: str, names: Sequence[str] = ()) -> Sequence[str]:
        """Take names of an image away, all without ``names``; the image itself stays. Raises: NotFound."""
        self._open()
        return self._store.untag(text, names)

    def remove(self, names: Sequence[str], *, force: bool = False) -> Sequence[str]:
        """Remove names, and images with their last name; "Untagged: …" and "Deleted: …" lines as docker prints them.

        All names are looked up before the first is removed. Raises: NotFound, Conflict while containers use an image.
        """
        self._open()
        for name in names:
            self._store.find(name)
        removals: list[Removal] = []
        try:
            for name in names:
                with self._store.lock():
                    removals.append(self._store.remove(name, force=force, uses=garbage.uses(self._settings)))
        finally:
            self.collect()
        return garbage.removal_lines(removals, settings=self._settings)

    def prune(self, *, all: bool = False, only: PruneFilter | None = None, keep_bytes: int = -1) -> Pruned:
        """Remove images without a name, or ``all`` that no container was made from, and every rest of a crash.

        ``keep_bytes``: the longest unused go first, and only until all images take no more. Raises: Unavailable.
        """
        from cloison.engine.pruning import PruneFilter, prune_images

        only = only or PruneFilter()
        return prune_images(settings=self._settings, all=all, only=only, keep_bytes=keep_bytes)

    def collect(self) -> None:
        """Remove layers and blobs that neither an image nor a container needs, and what crashes left unfinished.

        While images are being brought, which no record names yet, that is left to whoever brings them.
        """
        garbage.collect(self._settings)

    # -- inside

    def _clean_up(self) -> None:
        """What had to be fetched again for a moment, and what others removed meanwhile."""
        if self._settings.drop_layer_blobs or self._store.wants_collection:
            self.collect()

    @property
    def _blobs(self) -> Blobs:
        from cloison.store.blobs import Blobs

        return Blobs(self._settings.data_root)

    def _open(self) -> None:
        garbage.open_store(self._settings)


def _is_host_base(text: str) -> bool:
    return text.startswith(HOST_BASE) and parse_reference(text).canonical == _HOST_BASE_CANONICAL


def _is_for(image: Image, platform: str) -> bool:
    from cloison.oci.image import Platform
    from cloison.registry.platforms import parse_platform, runs_on

    actual = Platform(os=image.os, architecture=image.architecture, variant=image.variant)
    return runs_on(actual, parse_platform(platform))


def _check_platform(image: Image, platform: str, *, name: str) -> None:
    """Raises: NotFound, in docker's words."""
    if not _is_for(image, platform):
        actual = "/".join(filter(None, (image.os, image.architecture, image.variant)))
        why = f"its platform ({actual}) does not match the specified platform ({platform})"
        raise NotFound(f"image with reference {name} was found, but {why}")
