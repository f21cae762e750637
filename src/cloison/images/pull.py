"""Reference -> verified blobs: resolve the manifest, choose the platform, bring config and layers into the store."""

from __future__ import annotations

import threading
from functools import partial

from cloison.errors import InvalidArgument, NotFound, Unavailable, Unsupported
from cloison.images.copy_places import RegistrySource
from cloison.images.copying import Contents, look, short
from cloison.images.crew import Crew
from cloison.images.mirrors import Mirrored
from cloison.images.reach import Reach
from cloison.model.record import Record
from cloison.oci.image import DOCKER_CONFIG, OCI_CONFIG, Index, Platform, chain_ids, parse_config, parse_manifest
from cloison.oci.strict import MAX_DOCUMENT_BYTES
from cloison.registry.platforms import choose, parse_platform, render_platform, runs_on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence, Set

    from cloison.images.progress import Progress
    from cloison.model.reference import Reference
    from cloison.model.settings import Access, Settings
    from cloison.oci.image import ConfigDocument, Descriptor, Manifest
    from cloison.registry.budget import Limits
    from cloison.registry.client import ManifestAnswer
    from cloison.store.blobs import Blobs
    from cloison.store.locks import Claim

# docker uses 3; more connections gain little and strain the registry
_PARALLEL = 4
_MAX_DEPTH = 3
_MAX_LAYER_BYTES = 1 << 40
_LOOK_AGAIN_S = 0.05  # while somebody else brings a blob
_LAYER_WORDS = ("layer", "rootfs.diff")


class Fetched(Record):
    """An image whose blobs are all in the store. ``digest`` is what the reference names: an index or the manifest."""

    digest: str
    manifest_digest: str
    config: bytes
    config_digest: str
    layers: tuple[Descriptor, ...]


def fetch(
    reference: Reference,
    *,
    blobs: Blobs,
    settings: Settings,
    platform: str = "",
    progress: Progress,
    limits: Limits | None = None,
    access: Access | None = None,
    every_platform: bool = False,
    is_unpacked: Callable[[str], bool] | None = None,
) -> Fetched:
    """Bring what is missing of ``reference``'s image for ``platform`` ("" is this machine) into ``blobs``.

    Layers come in parallel. A blob is visible only when its size and digest are right; a failure stops the others and
    leaves what was complete. ``is_unpacked`` tells of a chain ID whether that layer need not come at all.

    Raises: NotFound, Denied, Unavailable, Unsupported, InvalidArgument.
    """
    wanted = parse_platform(platform)
    reach = Reach(settings, access=access, warn=progress.message, limits=limits)
    with Mirrored(reach.readers(reference), say=progress.message) as client:
        top = client.manifest(reference)
        progress.message(f"{reference.digest or reference.tag}: Pulling from {reference.path}")
        answers, manifest = [top], parse_manifest(top.body, media_type=top.media_type)
        while isinstance(manifest, Index):
            if len(answers) > _MAX_DEPTH:
                raise InvalidArgument(f"cannot pull {reference.familiar}", why="its indexes are nested too deeply")
            answers.append(
                _fetch_manifest(client, reference, choose(manifest.manifests, wanted, name=reference.familiar))
            )
            manifest = parse_manifest(answers[-1].body, media_type=answers[-1].media_type)
        _check_manifest(manifest, reference)
        others = Contents(manifests=(), blobs=())
        if every_platform:
            others = look(RegistrySource(reference, client), name=reference.familiar, every_platform=True)
        quiet = {manifest.config.digest, *others.configs}
        layers: Sequence[Descriptor] = manifest.layers
        if is_unpacked is not None:
            _bring(client, [manifest.config], blobs=blobs, progress=progress, quiet=quiet)
            layers = _missing_layers(manifest, blobs.read(manifest.config.digest), is_unpacked, progress=progress)
        wanted_blobs = [manifest.config, *layers, *others.blobs]
        _bring(client, wanted_blobs, blobs=blobs, progress=progress, quiet=quiet)
        if client.rate_limit:
            progress.message(f"Rate limit: {client.rate_limit}")
    config = blobs.read(manifest.config.digest, MAX_DOCUMENT_BYTES)
    document = parse_config(config)
    if len(document.diff_ids) != len(manifest.layers):
        raise InvalidArgument(
            f"cannot pull {reference.familiar}", why="its configuration and its manifest differ in layers"
        )
    _check_platform(document, wanted, reference, asked=bool(platform), progress=progress)
    for answer in (*answers, *others.manifests):
        blobs.add_bytes(answer.body, digest=answer.digest)
    return Fetched(
        digest=top.digest, manifest_digest=answers[-1].digest, config=config, config_digest=manifest.config.digest,
        layers=manifest.layers,
    )  # fmt: skip


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
        _bring(client, descriptors, blobs=blobs, progress=progress, quiet=set())


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


def _bring(
    client: Mirrored, descriptors: Iterable[Descriptor], *, blobs: Blobs, progress: Progress, quiet: Set[str]
) -> None:
    """All of these blobs, each once, a few at a time; the first failure ends the rest and is raised."""
    unique = {descriptor.digest: descriptor for descriptor in descriptors}
    fetcher = _Fetcher(client, blobs=blobs, progress=progress, quiet=quiet)
    jobs = [partial(fetcher.fetch, descriptor) for descriptor in unique.values()]
    Crew(jobs, on_stop=fetcher.stop).run(_PARALLEL)


class _Fetcher:
    """Brings one blob after the other; several threads use one."""

    def __init__(self, client: Mirrored, *, blobs: Blobs, progress: Progress, quiet: Set[str]) -> None:
        self._client = client
        self._blobs = blobs
        self._progress = progress
        self._quiet = quiet
        self._stopped = threading.Event()

    def fetch(self, descriptor: Descriptor) -> None:
        """Bring one blob, or wait for whoever is bringing it at this moment, in this process or another."""
        with self._claim(descriptor):
            self._fetch(descriptor)

    def _claim(self, descriptor: Descriptor) -> Claim:
        waits = False
        while True:
            try:
                return self._blobs.claim(descriptor.digest, wait=False)
            except BlockingIOError:
                pass
            if not waits and descriptor.digest not in self._quiet:
                self._progress.start(short(descriptor.digest), descriptor.size, "Waiting")
            waits = True
            if self._stopped.wait(_LOOK_AGAIN_S):
                raise Unavailable("the pull was stopped")

    def stop(self) -> None:
        """End what the threads may be waiting for."""
        self._stopped.set()
        self._client.abort()

    def _fetch(self, descriptor: Descriptor) -> None:
        item = short(descriptor.digest)
        shown = descriptor.digest not in self._quiet
        if self._is_there(descriptor):
            if shown:
                self._progress.finish(item, "Already exists")
            return
        if shown:
            self._progress.start(item, descriptor.size, "Downloading")
        with self._blobs.writer(descriptor.digest, descriptor.size) as out:
            for chunk in self._client.blob(descriptor):
                out.write(chunk)
                if shown:
                    self._progress.advance(item, len(chunk))
        if shown:
            self._progress.finish(item, "Download complete")

    def _is_there(self, descriptor: Descriptor) -> bool:
        # when sizes differ, the file or the descriptor is wrong: fetching again mends the one and tells the other
        return self._blobs.has(descriptor.digest) and self._blobs.size(descriptor.digest) == descriptor.size
