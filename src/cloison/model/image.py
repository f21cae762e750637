"""The nouns of images as the engine sees them; the wire shapes are in `cloison.oci`."""

from __future__ import annotations

from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar


class ImageConfig(Record):
    """What an image says about running it (image-spec config.md, "config")."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    stop_signal: str = ""
    exposed_ports: tuple[str, ...] = ()  # "80/tcp"
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}


class Image(Record):
    """One image in the local store, ready to run: its layers are unpacked."""

    id: str  # "sha256:…" of the config blob
    digest: str  # "sha256:…" of the manifest
    config: ImageConfig
    layers: tuple[str, ...]  # chain IDs ("sha256:…"), base first
    diff_ids: tuple[str, ...] = ()  # of the same layers, each alone; () in records of before there was this field
    architecture: str = ""
    os: str = "linux"
    variant: str = ""
    created: str = ""  # RFC 3339
    author: str = ""
    size_bytes: int = 0  # unpacked, all layers
    layer_sizes: tuple[int, ...] = ()  # one a layer, unpacked
    repo_digests: tuple[str, ...] = ()  # "docker.io/library/debian@sha256:…", what a registry called it
    version: int = 1

    NESTED: ClassVar[Mapping[str, Any]] = {"config": ImageConfig}


class ImageListing(Record):
    """One line of ``images``."""

    reference: str  # "" for a dangling image
    image: Image


class PlatformShare(Record):
    """What is here of an image for one platform."""

    name: str  # "linux/arm64/v8"
    digest: str  # of its manifest
    disk_bytes: int  # unpacked; 0 when it is not
    content_bytes: int  # of its blobs that are here


class HistoryEntry(Record):
    """What made one layer, or changed the configuration alone (image-spec config.md, "history")."""

    created: str = ""  # RFC 3339
    created_by: str = ""
    author: str = ""
    comment: str = ""
    is_empty: bool = False  # no layer came of it
    size_bytes: int = 0  # of its layer, unpacked


class FileChange(Record):
    """One path that differs between two trees."""

    kind: str  # A added, C changed, D deleted
    path: str  # absolute; bytes that are no UTF-8 as surrogates
