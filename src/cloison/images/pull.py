"""Reference -> verified blobs: resolve the manifest, choose the platform, let config and layers come into the store."""

from __future__ import annotations

from contextlib import ExitStack

from cloison.errors import InvalidArgument, NotFound, Unsupported
from cloison.images.arriving import Arrivals
from cloison.images.copy_places import RegistrySource
from cloison.images.copying import Contents, look, short
from cloison.images.mirrors import Mirrored
from cloison.images.progress import NoProgress
from cloison.images.reach import Reach
from cloison.model.record import Record
from cloison.oci.image import DOCKER_CONFIG, OCI_CONFIG, Index, Platform, chain_ids, parse_config, parse_manifest
from cloison.oci.strict import MAX_DOCUMENT_BYTES
from cloison.registry.platforms import choose, parse_platform, render_platform, runs_on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from cloison.images.progress import Progress
    from cloison.model.reference import Reference
    from cloison.model.settings import Access, Settings
    from cloison.oci.image import ConfigDocument, Descriptor, Manifest
    from cloison.registry.budget import Limits
    from cloison.registry.client import ManifestAnswer
    from cloison.store.blobs import Blobs

_MAX_DEPTH = 3
_MAX_LAYER_BYTES = 1 << 40
_LAYER_WORDS = ("layer", "rootfs.diff")


class Fetched(Record):
    """An image as its manifest has it. ``digest`` is what the reference names: an index or the manifest."""

    digest: str
    manifest_digest: str
    config: bytes
    config_digest: str
    layers: tuple[Descriptor, ...]


class Pull:
    """One image on its way into ``blobs``: ``begin``, then its layers come while the context is open.

    ``platform`` "" is this machine's. ``is_unpacked`` tells of a chain ID whether that layer need not come at all.
    A blob is visible only when its size and digest are right; a failure stops the others and leaves what was complete.
    """

    def __init__(
        self, reference: Reference, *, blobs: Blobs, settings: Settings, progress: Progress, platform: str = "",
        limits: Limits | None = None, access: Access | None = None, every_platform: bool = False,
        is_unpacked: Callable[[str], bool] | None = None,
    ) -> None:  # fmt: skip
        self._reference = reference
        self._blobs = blobs
        self._progress = progress
        self._platform = platform
        self._every_platform = every_platform
        self._is_unpacked = is_unpacked
        reach = Reach(settings, access=access, warn=progress.message, limits=limits)
        self._client = Mirrored(reach.readers(reference), say=progress.message)
        self._stack = ExitStack()
        self.layers: Arrivals  # those that come
        self.fetched: Fetched

    def begin(self) -> None:
        """Bring manifest and configuration, and let the layers come.

        Raises: NotFound, Denied, Unavailable, Unsupported, InvalidArgument; nothing goes on then.
        """
        with self._stack as stack:
            stack.enter_context(self._client)
            answers, manifest = self._resolve()
            others = Contents(manifests=(), blobs=())
            if self._every_platform:
                source = RegistrySource(self._reference, self._client)
                others = look(source, name=self._reference.familiar, every_platform=True)
            wanted = (manifest.config, *manifest.layers, *others.blobs)
            if self._is_unpacked is not None:
                bring(self._client, [manifest.config], blobs=self._blobs, progress=NoProgress())
                config = self._blobs.read(manifest.config.digest, MAX_DOCUMENT_BYTES)
                missing = _missing_layers(manifest, config, self._is_unpacked, progress=self._progress)
                wanted = (manifest.config, *missing, *others.blobs)
            quiet = {manifest.config.digest, *others.configs}
            self.layers = stack.enter_context(
                Arrivals(self._client, wanted, blobs=self._blobs, progress=self._progress, quiet=quiet)
            )
            self.layers.wait(manifest.config.digest)
            self.fetched = Fetched(
                digest=answers[0].digest, manifest_digest=answers[-1].digest, layers=manifest.layers,
                config=self._blobs.read(manifest.config.digest, MAX_DOCUMENT_BYTES),
                config_digest=manifest.config.digest,
            )  # fmt: skip
            self._check_config()
            for answer in (*answers, *others.manifests):
                self._blobs.add_bytes(answer.body, digest=answer.digest)
            self._stack = stack.pop_all()

    def _resolve(self) -> tuple[list[ManifestAnswer], Manifest]:
        """What the reference names, and what is below it, down to the manifest for the platform."""
        reference = self._reference
        top = self._client.manifest(reference)
        self._progress.message(f"{reference.digest or reference.tag}: Pulling from {reference.path}")
        answers, manifest = [top], parse_manifest(top.body, media_type=top.media_type)
        while isinstance(manifest, Index):
            if len(answers) > _MAX_DEPTH:
                raise InvalidArgument(f"cannot pull {reference.familiar}", why="its indexes are nested too deeply")
            member = choose(manifest.manifests, parse_platform(self._platform), name=reference.familiar)
            answers.append(_fetch_manifest(self._client, reference, member))
            manifest = parse_manifest(answers[-1].body, media_type=answers[-1].media_type)
        _check_manifest(manifest, reference)
        return answers, manifest

    def _check_config(self) -> None:
        document = parse_config(self.fetched.config)
        if len(document.diff_ids) != len(self.fetched.layers):
            raise InvalidArgument(
                f"cannot pull {self._reference.familiar}", why="its configuration and its manifest differ in layers"
            )
        _check_platform(
            document, parse_platform(self._platform), self._reference, asked=bool(self._platform),
            progress=self._progress,
        )  # fmt: skip

    def __enter__(self) -> Pull:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._client.rate_limit:
            self._progress.message(f"Rate limit: {self._client.rate_limit}")
        self._stack.__exit__(kind, err, trace)


def bring(client: Mirrored, descriptors: Iterable[Descriptor], *, blobs: Blobs, progress: Progress) -> None:
    """All of these blobs. Raises: the first failure, which ends the rest."""
    with Arrivals(client, descriptors, blobs=blobs, progress=progress) as arrivals:
        arrivals.wait()


def _missing_layers(
    manifest: Manifest, config: bytes, is_unpacked: Callable[[str], bool], *, progress: Progress
) -> Sequence[Descriptor]:
    """Without those that are unpacked here; the compressed form of these may have been dropped."""
    diff_ids = parse_config(config).diff_ids
    missing = []
    for layer, chain in zip(manifest.layers, chain_ids(diff_ids), strict=False):
        if is_unpacked(chain):
            progress.finish(short(layer.digest), "Already exists")
        else:
            missing.append(layer)
    return missing


def fetch_blobs(
    reference: Reference, descriptors: Sequence[Descriptor], *, blobs: Blobs, settings: Settings,
    access: Access | None, progress: Progress,
) -> None:  # fmt: skip
    """Bring blobs of an image whose documents are here. Raises: NotFound, Denied, Unavailable, InvalidArgument."""
    reach = Reach(settings, access=access, warn=progress.message)
    with Mirrored(reach.readers(reference), say=progress.message) as client:
        bring(client, descriptors, blobs=blobs, progress=progress)


def _fetch_manifest(client: Mirrored, reference: Reference, descriptor: Descriptor) -> ManifestAnswer:
    """A member of an index: digest, size and media type must be what the index says."""
    answer = client.manifest(reference.replace(tag="", digest=descriptor.digest))
    if len(answer.body) != descriptor.size:
        raise InvalidArgument(
            f"manifest {descriptor.digest} does not match", why=f"{len(answer.body)} bytes, not {descriptor.size}"
        )
    if descriptor.media_type and answer.media_type != descriptor.media_type:
        raise InvalidArgument(
            f"manifest {descriptor.digest} does not match", why=f"{answer.media_type}, not {descriptor.media_type}"
        )
    return answer


def _check_manifest(manifest: Manifest, reference: Reference) -> None:
    """Whether this is an image that can be unpacked; other artifacts look the same but for their media types."""
    if manifest.config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
        raise Unsupported(
            f"cannot use {reference.familiar} as an image", why=f"it is a {manifest.config.media_type[:100]!r}"
        )
    if manifest.config.size > MAX_DOCUMENT_BYTES:
        raise InvalidArgument(
            f"cannot pull {reference.familiar}", why=f"its configuration has {manifest.config.size} bytes"
        )
    for layer in manifest.layers:
        if not any(word in layer.media_type for word in _LAYER_WORDS):
            raise Unsupported(
                f"cannot use {reference.familiar} as an image", why=f"a layer is a {layer.media_type[:100]!r}"
            )
        if layer.size > _MAX_LAYER_BYTES:
            raise InvalidArgument(f"cannot pull {reference.familiar}", why=f"a layer has {layer.size} bytes")


def _check_platform(
    document: ConfigDocument, wanted: Platform, reference: Reference, *, asked: bool, progress: Progress
) -> None:
    """An image that is no index is for one platform: another than asked for is an error, than ours a warning."""
    actual = Platform(os=document.os, architecture=document.architecture, variant=document.variant)
    if runs_on(actual, wanted):
        return
    names = f"{render_platform(actual)}, not {render_platform(wanted)}"
    if asked:
        raise NotFound(
            f"no image for platform {render_platform(wanted)} in {reference.familiar}", why=f"it is for {names}"
        )
    progress.message(f"WARNING: {reference.familiar} is for {names}: its programs may not run on this machine")
