"""Images that are elsewhere, looked at without pulling them: what skopeo's and docker's ``inspect`` show."""

from __future__ import annotations

from cloison.errors import CloisonError, InvalidArgument
from cloison.images.copying import Verified
from cloison.oci.image import DOCKER_MANIFEST, Index, parse_config, parse_manifest
from cloison.oci.strict import MAX_DOCUMENT_BYTES
from cloison.registry.platforms import choose, parse_platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.images.copying import Source
    from cloison.oci.image import Descriptor, Manifest
    from cloison.registry.client import ManifestAnswer

_MAX_DEPTH = 3


def one_image(source: Source, *, platform: str, name: str) -> tuple[ManifestAnswer, Manifest]:
    """The manifest of an image for a platform ("" is this machine's). Raises: NotFound, InvalidArgument."""
    answer = source.manifest()
    document = parse_manifest(answer.body, media_type=answer.media_type)
    for _depth in range(_MAX_DEPTH):
        if not isinstance(document, Index):
            return answer, document
        member = choose(document.manifests, parse_platform(platform), name=name)
        answer = source.manifest(member.digest)
        document = parse_manifest(answer.body, media_type=answer.media_type)
    raise InvalidArgument(f"cannot look at {name}", why="its indexes are nested too deeply")


def small_blob(source: Source, descriptor: Descriptor) -> bytes:
    """A configuration, verified. Raises: InvalidArgument."""
    if descriptor.size > MAX_DOCUMENT_BYTES:
        raise InvalidArgument(f"blob {descriptor.digest} is too large", why=f"{descriptor.size} bytes")
    return b"".join(Verified(source, descriptor).open_at(0))


def summary(source: Source, *, platform: str, name: str, tags: Sequence[str]) -> dict[str, object]:
    """skopeo's document: ``Digest`` is the index's where there is one, the rest is of one platform's image."""
    top = source.manifest()
    _, manifest = one_image(source, platform=platform, name=name)
    config = parse_config(small_blob(source, manifest.config))
    layers = [
        {
            "MIMEType": layer.media_type, "Digest": layer.digest, "Size": layer.size,
            "Annotations": dict(layer.annotations) or None,
        }
        for layer in manifest.layers
    ]  # fmt: skip
    run = config.config
    return {
        "Name": name, "Digest": top.digest, "RepoTags": list(tags), "Created": config.created or None,
        "DockerVersion": "", "Labels": dict(run.labels) or None, "Architecture": config.architecture,
        **({"Variant": config.variant} if config.variant else {}), "Os": config.os,
        "Layers": [layer.digest for layer in manifest.layers], "LayersData": layers, "Env": list(run.env) or None,
    }  # fmt: skip


def verbose(source: Source, *, name: str) -> list[dict[str, object]]:
    """``manifest inspect -v``: every member with its descriptor, platform and manifest."""
    import json

    top = source.manifest()
    document = parse_manifest(top.body, media_type=top.media_type)
    answers = [source.manifest(item.digest) for item in document.manifests] if isinstance(document, Index) else [top]
    shown = []
    for answer in answers:
        manifest = parse_manifest(answer.body, media_type=answer.media_type)
        key = "SchemaV2Manifest" if answer.media_type == DOCKER_MANIFEST else "OCIManifest"
        descriptor: dict[str, object] = {
            "mediaType": answer.media_type, "digest": answer.digest, "size": len(answer.body),
        }  # fmt: skip
        if not isinstance(manifest, Index) and (platform := _platform(source, manifest)):
            descriptor["platform"] = platform
        shown.append({"Ref": f"{name}@{answer.digest}", "Descriptor": descriptor, key: json.loads(answer.body)})
    return shown


def _platform(source: Source, manifest: Manifest) -> dict[str, str]:
    """What the configuration says; {} for what is no image."""
    try:
        config = parse_config(small_blob(source, manifest.config))
    except CloisonError:
        return {}
    words = {"architecture": config.architecture, "os": config.os, "variant": config.variant}
    return {key: value for key, value in words.items() if value}
