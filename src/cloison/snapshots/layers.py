"""Layers and writable snapshots as directories: what all drivers have in common.

    snapshots/<driver>/layers/<hex of the chain ID>/    a layer; committed by rename, never changed after
    snapshots/<driver>/containers/<id>/                 what one container writes
    snapshots/<driver>/mountpoints/                     below every image: where we mount, should it not have it
    snapshots/<driver>/incoming/<token>{/,.lock}        being unpacked; a free lock means a crash
    snapshots/<driver>/incoming/<token>.gone/           being removed
    snapshots/<driver>/incoming/<hex>.claim             who unpacks this layer; others wait

The whole tree lies below a 0700 directory: other users must not reach setuid files in it.
"""

from __future__ import annotations

import errno
import os

from cloison.errors import Conflict, InvalidArgument, NotFound, Unavailable
from cloison.model.digest import split_digest
from cloison.store.atomic import make_private_directory, sync_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloison.archive.decompress import Readable
    from cloison.snapshots.staging import Staged
    from cloison.store.locks import Claim

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ID_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.-"
# An image without them would have them made in each container's own layer, and removed again: half a millisecond.
_MOUNTPOINTS = ("dev", "proc", "sys", "etc")
_MOUNTPOINT_FILES = ("etc/hosts", "etc/hostname", "etc/resolv.conf")


class Layers:
    """The directories of one driver below one data root."""

    name = ""
    # how a container's files are told from its image's: see `cloison.archive.changes`
    compare_by = "touched"
    # names that the driver uses for itself, in every directory
    hidden: frozenset[str] = frozenset()

    def __init__(self, data_root: str) -> None:
        root = f"{data_root}/snapshots/{self.name}"
        self._root = root
        self._layers = f"{root}/layers"
        self._containers = f"{root}/containers"
        self.incoming = f"{root}/incoming"
        self.mountpoints = f"{root}/mountpoints"

    # -- layers

    def layer_path(self, chain_id: str) -> str:
        """Where the layer's root is, or would be. Raises: InvalidArgument."""
        return f"{self._layers}/{split_digest(chain_id)[1]}"

    def has(self, chain_id: str) -> bool:
        return os.path.isdir(self.layer_path(chain_id))

    def stage(self, stream: Readable) -> Staged:
        from cloison.snapshots.staging import stage

        self._make_directories()
        return stage(stream, incoming=self.incoming, layer_path=self.layer_path)

    def apply(self, chain_id: str, stream: Readable, *, diff_id: str = "", below: Sequence[str] = ()) -> Staged:
        """Stage, verify and commit one layer. Raises: InvalidArgument when ``diff_id`` is another, and as `stage`."""
        staged = self.stage(stream)
        try:
            if diff_id not in ("", staged.applied.diff_id):
                raise InvalidArgument(f"layer {diff_id} does not match", why=f"its content is {staged.applied.diff_id}")
            staged.commit(chain_id, below=below)
        finally:
            staged.discard()
        return staged

    def claim(self, chain_id: str) -> Claim:
        """Whoever is about to unpack a layer, and those on top of it, holds this; others wait and find them."""
        from cloison.store.locks import Claim

        self._make_directories()
        return Claim(f"{self.incoming}/{split_digest(chain_id)[1]}.claim")

    def remove_layer(self, chain_id: str) -> bool:
        return self._remove(self.layer_path(chain_id))

    def sync(self) -> None:
        """The names of committed layers survive a power cut."""
        sync_directory(self._layers)

    def layer_size(self, chain_id: str, *, below: Sequence[str] = ()) -> int:
        """Bytes of all regular files of one layer, counted like `Applied.size_bytes`."""
        return measure(self.layer_path(chain_id), of_disk=False)

    def list_layers(self) -> Iterator[str]:
        return (f"sha256:{name}" for name in _names(self._layers))

    # -- containers

    def remove_directory(self, path: str) -> bool:
        """Remove a directory of ours that a container has filled; whether it was there.

        Raises: Unavailable when something is still mounted below it, or the disk fails.
        """
        from cloison.linux.trees import remove_tree

        try:
            parent_fd = os.open(os.path.dirname(path), _DIRECTORY)
        except FileNotFoundError:
            return False
        try:
            return remove_tree(parent_fd, os.path.basename(path))
        except OSError as err:
            busy = err.errno in (errno.EBUSY, errno.EXDEV)
            why = "something is mounted in it" if busy else os.strerror(err.errno or 0).lower()
            raise Unavailable(f"cannot remove {path}", why=why) from err
        finally:
            os.close(parent_fd)

    def list_containers(self) -> Iterator[str]:
        return iter(_names(self._containers))

    def show(self, layers: Sequence[str], target: str) -> None:
        """Mount these layers, read-only, on a directory of the host. Raises: OSError."""
        from cloison.snapshots.showing import show

        show(self.layer_directories(layers), target)

    def layer_directories(self, layers: Sequence[str]) -> Sequence[str]:
        raise NotImplementedError  # the drivers'

    def release(self, container_id: str) -> None:
        """The container has ended: let go of what its running needed. Nothing, for most drivers."""

    # -- inside

    def _make_home(self, home: str) -> None:
        try:
            os.mkdir(home, 0o700)
        except FileNotFoundError:
            self._make_directories()
            os.mkdir(home, 0o700)
        except FileExistsError:
            raise Conflict(f"snapshot {os.path.basename(home)} exists already") from None

    def sweep(self) -> int:
        from cloison.snapshots.staging import sweep

        return sweep(self.incoming)

    def _remove(self, path: str) -> bool:
        """Out of sight in one step, then removed: a crash in between leaves no half of a layer."""
        self._make_directories()
        gone = f"{self.incoming}/{os.urandom(8).hex()}.gone"
        try:
            os.rename(path, gone)
        except FileNotFoundError:
            return False
        return self.remove_directory(gone)

    def home(self, container_id: str) -> str:
        """Where a container's directories are, or would be. Raises: InvalidArgument."""
        if not container_id or container_id.strip(_ID_LETTERS) or container_id[0] == ".":
            raise InvalidArgument(f"invalid snapshot name: {container_id!r}")
        return f"{self._containers}/{container_id}"

    def _make_mountpoints(self) -> None:
        """In place, the last of them last: who mounts half of it makes the rest in the container's own layer."""
        if os.path.exists(f"{self.mountpoints}/{_MOUNTPOINT_FILES[-1]}"):
            return
        self._make_directories()
        for name in ("", *_MOUNTPOINTS):
            path = f"{self.mountpoints}/{name}"
            try:
                os.mkdir(path)
            except FileExistsError:
                continue
            os.chmod(path, 0o755)
        for name in _MOUNTPOINT_FILES:
            fd = os.open(f"{self.mountpoints}/{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.fchmod(fd, 0o644)
            os.close(fd)

    def _make_directories(self) -> None:
        for path in (self._root, self._layers, self._containers, self.incoming):
            make_private_directory(path)


def missing_layer(chain_id: str) -> NotFound:
    return NotFound(f"layer {chain_id} is missing", hint="remove the image and pull it again")


def measure(path: str, *, of_disk: bool) -> int:
    from cloison.linux.trees import tree_content, tree_usage

    try:
        fd = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return 0
    try:
        return tree_usage(fd) if of_disk else tree_content(fd)
    finally:
        os.close(fd)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
