"""What every snapshot driver offers: layers by chain ID, and one writable snapshot a container."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Protocol

    from cloison.archive.decompress import Readable
    from cloison.archive.unpack import Applied
    from cloison.model.mount import Mount
else:
    Protocol = object


class StagedLayer(Protocol):
    """A layer that is unpacked but not visible yet."""

    @property
    def applied(self) -> Applied:
        """What its stream was; the caller compares the diff ID."""

    def commit(self, chain_id: str, *, below: Sequence[str] = ()) -> None:
        """Make it the layer ``chain_id`` on top of ``below`` (base first, all committed); quiet when that exists."""

    def discard(self) -> None:
        """Throw it away; nothing happens once it is committed."""


class Snapshotter(Protocol):
    """Thread-safe and process-safe."""

    def has(self, chain_id: str) -> bool:
        """Whether the layer is committed."""

    def stage(self, stream: Readable) -> StagedLayer:
        """Unpack one layer, compressed or not. Raises: InvalidArgument, Unavailable, Denied; then nothing is left."""

    def prepare(self, container_id: str, layers: Sequence[str], *, volatile: bool) -> Mount:
        """A new writable snapshot on these layers, base first. Raises: Conflict, NotFound, Unavailable."""

    def mount_of(self, container_id: str, layers: Sequence[str], *, volatile: bool) -> Mount:
        """The mount of a snapshot that exists. Raises: NotFound, Unavailable."""

    def remove(self, container_id: str) -> bool:
        """Remove a container's writable snapshot; whether there was one."""

    def remove_layer(self, chain_id: str) -> bool:
        """Remove a layer that nobody uses; whether there was one."""

    def list_layers(self) -> Iterator[str]:
        """Chain IDs of all committed layers."""

    def list_containers(self) -> Iterator[str]:
        """Containers that have a writable snapshot."""

    def usage(self, container_id: str) -> int:
        """Bytes on disk of what the container wrote."""

    def sweep(self) -> int:
        """Remove what crashes left unfinished; how many things."""
