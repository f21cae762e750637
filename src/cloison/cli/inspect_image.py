"""An image as Docker's ``image inspect`` shows it (Engine API, ImageInspect)."""

from __future__ import annotations

from cloison.model.reference import parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.model.image import Image, ImageConfig, ImageListing


def image_document(
    image: Image, listings: Sequence[ImageListing], *, comment: str = "", places: tuple[str, Sequence[str]] = ("", ())
) -> dict[str, object]:
    """The whole document; ``listings`` tell under which references the image is known, ``places`` where its files are.

    ``places`` are the snapshot driver's name and directories, topmost first; ``comment`` is that of the newest layer.
    """
    driver, directories = places
    references = [listing.reference for listing in listings if listing.image.id == image.id and listing.reference]
    return {
        "Id": image.id,
        "RepoTags": [reference for reference in references if "@" not in reference],
        "RepoDigests": [familiar_digest(digest) for digest in image.repo_digests],
        "Comment": comment,
        "Created": image.created,
        "Author": image.author,
        "Config": _config(image.config),
        "Architecture": image.architecture,
        **({"Variant": image.variant} if image.variant else {}),
        "Os": image.os,
        "Size": image.size_bytes,
        "GraphDriver": {
            "Name": driver,
            "Data": {"UpperDir": "".join(directories[:1]), "LowerDir": ":".join(directories[1:])},
        },
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids or image.layers)},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
    }


def familiar_digest(repo_digest: str) -> str:
    """``debian@sha256:…`` for ``docker.io/library/debian@sha256:…``."""
    return parse_reference(repo_digest).familiar


def split_reference(reference: str) -> tuple[str, str]:
    """Repository and tag of a familiar reference; ``<none>`` for what is not there."""
    if not reference:
        return "<none>", "<none>"
    name, _, digest = reference.partition("@")
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        return name, "<none>" if digest else "latest"
    return head, tag


def _config(config: ImageConfig) -> dict[str, object]:
    return {
        "User": config.user,
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Env": list(config.env),
        "Cmd": list(config.cmd) or None,
        "Volumes": {volume: {} for volume in config.volumes} or None,
        "WorkingDir": config.workdir,
        "Entrypoint": list(config.entrypoint) or None,
        "Labels": dict(config.labels),
        "StopSignal": config.stop_signal,
    }
