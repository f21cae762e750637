"""The nouns of the OCI image specification (and Docker's schema 2), parsed strictly from bytes that strangers wrote.

Unknown fields pass ("Extensibility"), known ones must have their type. Sources: image-spec descriptor.md, manifest.md,
image-index.md, config.md; docker's distribution manifest-v2-2.md.
"""

from __future__ import annotations

import hashlib

from cloison.errors import InvalidArgument, Unsupported
from cloison.model.digest import parse_digest as parse_digest
from cloison.model.image import ImageConfig
from cloison.model.record import Record
from cloison.oci.fields import Fields
from cloison.oci.strict import parse_document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, ClassVar

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_DOCKER_PLAIN = DOCKER_LAYER.removesuffix(".gzip")
_DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"  # from elsewhere: no registry has them
_OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"

# What Docker's schema 2 calls a thing, and what OCI calls the same bytes (media-types.md, "Compatibility Matrix")
OCI_NAMES = {
    DOCKER_INDEX: OCI_INDEX, DOCKER_MANIFEST: OCI_MANIFEST, DOCKER_CONFIG: OCI_CONFIG,
    _DOCKER_PLAIN: OCI_LAYER, DOCKER_LAYER: f"{OCI_LAYER}+gzip", f"{_DOCKER_PLAIN}.zstd": f"{OCI_LAYER}+zstd",
    _DOCKER_FOREIGN: _OCI_FOREIGN, f"{_DOCKER_FOREIGN}.gzip": f"{_OCI_FOREIGN}+gzip",
}  # fmt: skip

INDEX_TYPES = (OCI_INDEX, DOCKER_INDEX)
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)

# the kernel's overlay takes at most 500 lower directories (fs/overlayfs/params.h, OVL_MAX_STACK)
MAX_LAYERS = 500
_MAX_MANIFESTS = 10_000
_MAX_HISTORY = 10_000


class Platform(Record):
    """What a manifest of an index runs on (image-index.md, "platform")."""

    architecture: str
    os: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()


class Descriptor(Record):
    """What is named, how long it is, and its digest (descriptor.md)."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = {}
    artifact_type: str = ""

    NESTED: ClassVar[Mapping[str, Any]] = {"platform": Platform}


class Manifest(Record):
    """One image for one platform (manifest.md)."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = OCI_MANIFEST
    annotations: Mapping[str, str] = {}


class Index(Record):
    """Manifests to choose from (image-index.md)."""

    manifests: tuple[Descriptor, ...]
    media_type: str = OCI_INDEX


class ConfigDocument(Record):
    """An image's configuration blob (config.md): how to run it, and the diff IDs of its layers, base first."""

    architecture: str
    os: str
    diff_ids: tuple[str, ...]
    config: ImageConfig = ImageConfig()
    variant: str = ""
    created: str = ""
    author: str = ""


def parse_manifest(data: bytes, *, media_type: str = "") -> Manifest | Index:
    """A manifest or an index, from bytes whose digest has been verified.

    media_type is what the descriptor or ``Content-Type`` said; it, the body's mediaType and the body's shape must
    agree, and a body that could be read both ways is refused (CVE-2021-41190).  Raises: InvalidArgument, Unsupported.
    """
    fields = parse_document(data, document="manifest")
    if fields.number("schemaVersion") == 1:
        raise Unsupported("cannot use this image", why="it has a Docker schema 1 manifest, obsolete since 2017")
    if fields.number("schemaVersion") != 2:
        raise fields.invalid("schemaVersion", "is not 2")
    kind = _agreed_media_type(fields, announced=media_type.partition(";")[0].strip())
    if kind in INDEX_TYPES:
        return Index(manifests=fields.objects("manifests", _parse_descriptor, limit=_MAX_MANIFESTS), media_type=kind)
    return Manifest(
        config=_parse_descriptor(fields.inner("config")),
        layers=fields.objects("layers", _parse_descriptor, limit=MAX_LAYERS),
        media_type=kind, annotations=fields.text_map("annotations"),
    )  # fmt: skip


def _agreed_media_type(fields: Fields, *, announced: str) -> str:
    is_index, is_manifest = fields.has("manifests"), fields.has("layers") or fields.has("config")
    if is_index == is_manifest:
        raise fields.invalid("", "is both an image and an index" if is_index else "is neither an image nor an index")
    stated = fields.text("mediaType", default="")
    known = INDEX_TYPES if is_index else MANIFEST_TYPES
    for claim in filter(None, (stated, announced)):
        if claim in INDEX_TYPES + MANIFEST_TYPES and claim not in known:
            raise fields.invalid("", f"does not look like {claim}")
    if stated and announced in INDEX_TYPES + MANIFEST_TYPES and stated != announced:
        raise fields.invalid("mediaType", f"is {stated}, but {announced} was announced")
    if stated and stated not in known:
        raise fields.invalid("mediaType", f"is {stated[:100]}, which is not known")
    return stated or (announced if announced in known else known[0])


def _parse_descriptor(fields: Fields) -> Descriptor:
    platform = fields.inner("platform") if fields.has("platform") else None
    return Descriptor(
        media_type=fields.text("mediaType", default=""), digest=parse_digest(fields.text("digest")),
        size=fields.number("size"), platform=_parse_platform(platform) if platform else None,
        annotations=fields.text_map("annotations"), artifact_type=fields.text("artifactType", default=""),
    )  # fmt: skip


def _parse_platform(fields: Fields) -> Platform:
    return Platform(
        architecture=fields.text("architecture", default=""), os=fields.text("os", default=""),
        variant=fields.text("variant", default=""), os_version=fields.text("os.version", default=""),
        os_features=fields.texts("os.features"),
    )  # fmt: skip


def parse_config(data: bytes) -> ConfigDocument:
    """An image's configuration, from bytes whose digest has been verified. Raises: InvalidArgument."""
    fields = parse_document(data, document="image configuration")
    rootfs = fields.inner("rootfs")
    if rootfs.text("type") != "layers":
        raise rootfs.invalid("type", "is not 'layers'")
    diff_ids = tuple(map(parse_digest, rootfs.texts("diff_ids")))
    if len(diff_ids) > MAX_LAYERS:
        raise rootfs.invalid("diff_ids", f"has {len(diff_ids)} entries, more than {MAX_LAYERS}")
    fields.objects("history", _check_history, limit=_MAX_HISTORY)
    return ConfigDocument(
        architecture=fields.text("architecture", default=""), os=fields.text("os", default="linux"),
        variant=fields.text("variant", default=""), created=fields.text("created", default=""),
        author=fields.text("author", default=""), diff_ids=diff_ids, config=_parse_run_config(fields.inner("config")),
    )  # fmt: skip


def parse_subject(data: bytes) -> Descriptor | None:
    """What a manifest or an index refers to, if it does (manifest.md, "subject"). Raises: InvalidArgument."""
    fields = parse_document(data, document="manifest")
    return _parse_descriptor(fields.inner("subject")) if fields.has("subject") else None


def parse_artifact(data: bytes, *, media_type: str) -> Descriptor:
    """A manifest's descriptor as a list of referrers has it, with its type (or its configuration's) and annotations."""
    fields = parse_document(data, document="manifest")
    kind = fields.text("artifactType", default="")
    if not kind and fields.has("config"):
        kind = fields.inner("config").text("mediaType", default="")
    return Descriptor(
        media_type=media_type, digest="sha256:" + hashlib.sha256(data).hexdigest(), size=len(data),
        annotations=fields.text_map("annotations"), artifact_type=kind,
    )  # fmt: skip


def _check_history(fields: Fields) -> str:
    return fields.text("created_by", default="")


def _parse_run_config(fields: Fields) -> ImageConfig:
    return ImageConfig(
        env=fields.texts("Env"), entrypoint=fields.texts("Entrypoint"), cmd=fields.texts("Cmd"),
        workdir=fields.text("WorkingDir", default=""), user=fields.text("User", default=""),
        stop_signal=fields.text("StopSignal", default=""), exposed_ports=fields.keys("ExposedPorts"),
        volumes=fields.keys("Volumes"), labels=fields.text_map("Labels"),
    )  # fmt: skip


def render_config(document: ConfigDocument, *, comment: str = "", created_by: str = "") -> bytes:
    """The configuration blob of an image that we make; the same document always gives the same bytes."""
    history = {"created": document.created, "created_by": created_by, "comment": comment}
    value = {
        "architecture": document.architecture, "variant": document.variant, "os": document.os,
        "created": document.created, "author": document.author, "config": plain_run_config(document.config),
        "rootfs": {"type": "layers", "diff_ids": list(document.diff_ids)},
        "history": [{key: text for key, text in history.items() if text}],
    }  # fmt: skip
    return render_document({key: item for key, item in value.items() if item != ""})


def plain_run_config(config: ImageConfig) -> dict[str, object]:
    """``config`` of a configuration blob; what is not set is left out."""
    value: dict[str, object] = {
        "User": config.user, "ExposedPorts": {port: {} for port in config.exposed_ports}, "Env": list(config.env),
        "Entrypoint": list(config.entrypoint), "Cmd": list(config.cmd),
        "Volumes": {path: {} for path in config.volumes},
        "WorkingDir": config.workdir, "Labels": dict(config.labels), "StopSignal": config.stop_signal,
    }  # fmt: skip
    return {key: item for key, item in value.items() if item}


def render_manifest(manifest: Manifest) -> bytes:
    """The manifest blob of an image that we make; canonical, so equal images have equal digests."""
    return render_document(
        {
            "schemaVersion": 2,
            "mediaType": manifest.media_type,
            "config": _plain_descriptor(manifest.config),
            "layers": [_plain_descriptor(layer) for layer in manifest.layers],
        }
    )


def render_index(index: Index) -> bytes:
    """An index that we make; canonical, as a manifest."""
    value: dict[str, object] = {"schemaVersion": 2, "mediaType": index.media_type}
    return render_document({**value, "manifests": [_plain_descriptor(item) for item in index.manifests]})


def _plain_descriptor(descriptor: Descriptor) -> dict[str, object]:
    value: dict[str, object] = {
        "mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size,
    }  # fmt: skip
    if descriptor.platform is not None:
        value["platform"] = _plain_platform(descriptor.platform)
    if descriptor.annotations:
        value["annotations"] = dict(descriptor.annotations)
    if descriptor.artifact_type:
        value["artifactType"] = descriptor.artifact_type
    return value


def _plain_platform(platform: Platform) -> dict[str, object]:
    value = {
        "architecture": platform.architecture, "os": platform.os, "variant": platform.variant,
        "os.version": platform.os_version, "os.features": list(platform.os_features),
    }  # fmt: skip
    return {key: item for key, item in value.items() if item or key in ("architecture", "os")}


def render_document(value: object) -> bytes:
    """Canonical JSON: equal values have equal bytes."""
    import json

    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """Name the file systems that layers make, one a prefix of the list, base layer first.

    Shape: the first is its diff ID; the next sha256(chain before + " " + diff ID), over their "sha256:<hex>" forms.
    Raises: InvalidArgument when empty.  Source: image-spec config.md, "Layer ChainID".
    """
    if not diff_ids:
        raise InvalidArgument("invalid image configuration", why="it has no layers")
    chains = [diff_ids[0]]
    for diff_id in diff_ids[1:]:
        chains.append("sha256:" + hashlib.sha256(f"{chains[-1]} {diff_id}".encode()).hexdigest())
    return tuple(chains)
