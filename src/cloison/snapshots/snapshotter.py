"""What every snapshot driver offers: layers by chain ID, and one writable snapshot a container."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Protocol

    from cloison.archive.decompress import Readable
    from cloison.archive.unpack import Applied
    from cloison.model.mount import Mount
    from cloison.store.locks import Claim
else:
    Protocol = object


class StagedLayer(Protocol):
    """A layer that is unpacked but not visible yet."""

    @property
    def applied(self) -> Applied:
        """What its stream was; the caller compares the diff ID."""

    def commit(self, chain_id: str, *, below: Sequence[str] = ()) -> None:
        """Make it the layer ``chain_id`` on top of ``below`` (base first, all committed); quiet when that exists."""

    @property
    def fd(self) -> int:
        """The directory that it will be; whole once `adopt` has been called."""

    def adopt(self, below: Sequence[str]) -> None:
        """Become what `commit` will show, unseen still. Raises: Unavailable, Denied."""

    def discard(self) -> None:
        """Throw it away; nothing happens once it is committed."""


class Snapshotter(Protocol):
    """Thread-safe and process-safe. The contract is `tests/contract/test_snapshot_drivers.py`."""

    name: str
    compare_by: str  # how a container's files are told from its image's: a word of `cloison.archive.changes`
    hidden: frozenset[str]  # names that the driver uses for itself, in every directory
    incoming: str  # the directory of what is not visible yet
    mountpoints: str  # the directory of what we mount on, should an image not have it

    def layer_path(self, chain_id: str) -> str:
        """Where the layer is, or would be: its own files, or the whole tree. Raises: InvalidArgument."""

    def home(self, container_id: str) -> str:
        """Where a container's files are, or would be. Raises: InvalidArgument."""

    def layer_directories(self, layers: Sequence[str]) -> Sequence[str]:
        """What these layers show, as directories in overlay's form, topmost first."""

    def base_directories(self, layers: Sequence[str]) -> Sequence[str]:
        """The same, as a container on them has found it."""

    def directories_of(self, container_id: str, layers: Sequence[str]) -> Sequence[str]:
        """What a container's root is made of, topmost first; for reading."""

    def has(self, chain_id: str) -> bool:
        """Whether the layer is committed."""

    def stage(self, stream: Readable) -> StagedLayer:
        """Unpack one layer, compressed or not. Raises: InvalidArgument, Unavailable, Denied; then nothing is left."""

    def claim(self, chain_id: str) -> Claim:
        """Held by whoever is about to unpack a layer and those on top of it; others wait for it."""

    def sync(self) -> None:
        """The names of committed layers survive a power cut."""

    def layer_size(self, chain_id: str, *, below: Sequence[str] = ()) -> int:
        """Bytes of the regular files that a layer brought, measured."""

    def prepare(self, container_id: str, layers: Sequence[str], *, volatile: bool) -> Mount:
        """A new writable snapshot on these layers, base first. Raises: Conflict, NotFound, Unavailable."""

    def mount_of(self, container_id: str, layers: Sequence[str], *, volatile: bool) -> Mount:
        """The mount of a snapshot that exists. Raises: NotFound, Unavailable."""

    def plan_mount(self, container_id: str, layers: Sequence[str], *, volatile: bool) -> Mount:
        """The mount that `prepare` would give; nothing is made."""

    def show(self, layers: Sequence[str], target: str) -> None:
        """Mount these layers, read-only, on a directory of the host. Raises: OSError, Unavailable."""

    def release(self, container_id: str) -> None:
        """The container has ended: let go of what its running needed."""

    def remove_directory(self, path: str) -> bool:
        """Remove a directory of ours that a container has filled; whether it was there. Raises: Unavailable."""

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
