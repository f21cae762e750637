"""Snapshots as overlayfs directories.

    snapshots/overlay/layers/<hex of the chain ID>/    a layer's root; committed by rename, never changed after
    snapshots/overlay/containers/<id>/{upper,work}     what one container writes
    snapshots/overlay/mountpoints/                     below every image: where we mount, should the image not have it
    snapshots/overlay/incoming/<token>{/,.lock}        being unpacked; a free lock means a crash
    snapshots/overlay/incoming/<token>.gone/           being removed

The whole tree lies below a 0700 directory: other users must not reach setuid files in it.
"""

from __future__ import annotations

import errno
import os
import time

from cloison.errors import Conflict, InvalidArgument, NotFound, Unavailable
from cloison.model.digest import split_digest
from cloison.model.mount import Mount
from cloison.snapshots.lookup import is_opaque
from cloison.store.atomic import disk_error, make_private_directory, sync_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloison.archive.decompress import Readable
    from cloison.snapshots.staging import Staged
    from cloison.store.locks import Claim

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ID_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.-"

# This kernel may be configured to follow redirects and metadata-only copies by default; a layer from a stranger could
# then show another layer's files under any name (overlayfs.rst, "redirect_dir", "Metadata only copy up").
_GUARDS = ("index=off", "metacopy=off", "redirect_dir=nofollow")
# where the kernel notes that an overlay was mounted volatile (overlayfs.rst, "Volatile mount")
_VOLATILE_MARK = "work/work/incompat"
# What the kernel leaves in a working directory, in the order in which it can be removed.
_LEFT_BY_KERNEL = ("work/work/incompat/volatile", "work/work/incompat", "work/work", "work")
# An image without them would have them made in each container's own layer, and removed again: half a millisecond.
_MOUNTPOINTS = ("dev", "proc", "sys", "etc")
_MOUNTPOINT_FILES = ("etc/hosts", "etc/hostname", "etc/resolv.conf")


class Overlay:
    """The overlay driver of one data root (see `Snapshotter`)."""

    def __init__(self, data_root: str) -> None:
        self._root = f"{data_root}/snapshots/overlay"
        self._layers = f"{self._root}/layers"
        self._containers = f"{self._root}/containers"
        self.incoming = f"{self._root}/incoming"
        self.mountpoints = f"{self._root}/mountpoints"

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

    def layer_size(self, chain_id: str) -> int:
        """Bytes of all regular files of one layer, counted like `Applied.size_bytes`."""
        return _measure(self.layer_path(chain_id), of_disk=False)

    def list_layers(self) -> Iterator[str]:
        return (f"sha256:{name}" for name in _names(self._layers))

    # -- containers

    def prepare(self, container_id: str, layers: Sequence[str], *, volatile: bool) -> Mount:
        home = self.home(container_id)
        top = self.layer_path(layers[-1])
        try:
            info = os.stat(top)
        except FileNotFoundError:
            raise _missing(layers[-1]) from None
        try:
            self._make_home(home)
            if not os.path.exists(f"{self.mountpoints}/{_MOUNTPOINT_FILES[-1]}"):
                self._make_mountpoints()
            # upper's own attributes are what the container sees as those of "/"
            os.mkdir(f"{home}/upper", 0o755)
            os.mkdir(f"{home}/work", 0o700)
            os.chmod(f"{home}/upper", info.st_mode & 0o7777)
            if info.st_uid or info.st_gid:
                os.chown(f"{home}/upper", info.st_uid, info.st_gid)
        except OSError as err:
            raise disk_error(home, err) from err
        return self._mount(home, layers, volatile=volatile)

    def _make_home(self, home: str) -> None:
        try:
            os.mkdir(home, 0o700)
        except FileNotFoundError:
            self._make_directories()
            os.mkdir(home, 0o700)
        except FileExistsError:
            raise Conflict(f"snapshot {os.path.basename(home)} exists already") from None

    def mount_of(self, container_id: str, layers: Sequence[str], *, volatile: bool) -> Mount:
        home = self.home(container_id)
        if not os.path.isdir(f"{home}/upper"):
            raise NotFound(f"no such snapshot: {container_id}")
        self._clear_volatile_mark(home)
        return self._mount(home, layers, volatile=volatile)

    def _clear_volatile_mark(self, home: str) -> None:
        """The kernel refuses a second mount after a volatile one, because a crash may have lost what was written.

        Within one boot nothing is lost, since the page cache is still there. Raises: Unavailable after a crash.
        """
        try:
            marked = os.stat(f"{home}/{_VOLATILE_MARK}/volatile", follow_symlinks=False).st_mtime
        except OSError:
            return
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        if marked < booted:
            raise Unavailable(
                f"cannot mount the file system of container {os.path.basename(home)[:12]}",
                why="it was not kept on disk (--rm), and the machine stopped meanwhile",
                hint="remove the container",
            )
        self.remove_directory(f"{home}/{_VOLATILE_MARK}")

    def _mount(self, home: str, layers: Sequence[str], *, volatile: bool) -> Mount:
        lower = [f"lowerdir+={path}" for path in (*self.layer_directories(layers), self.mountpoints)]
        writable = [f"upperdir={home}/upper", f"workdir={home}/work", *(("volatile",) if volatile else ())]
        return Mount(type="overlay", source="overlay", target="/", options=(*lower, *writable, *_GUARDS))

    def plan_mount(self, container_id: str, layers: Sequence[str], *, volatile: bool) -> Mount:
        """The mount that `prepare` would give; nothing is made."""
        return self._mount(self.home(container_id), layers, volatile=volatile)

    def directories_of(self, container_id: str, layers: Sequence[str]) -> tuple[str, ...]:
        """What the container's root is made of, topmost first, for `cloison.snapshots.lookup`."""
        return (f"{self.home(container_id)}/upper", *self.layer_directories(layers))

    def layer_directories(self, layers: Sequence[str]) -> Sequence[str]:
        """Directories of the layers that show, topmost first: none below one whose root hides all that was before.

        Overlay heeds the mark of an opaque directory everywhere but on a layer's own root, so we must. Looking costs
        3 us a layer and is not done for the lowest, under which nothing can hide.
        """
        paths = [self.layer_path(layer) for layer in reversed(layers)]
        for count, path in enumerate(paths[:-1], 1):
            if is_opaque(path):
                return paths[:count]
        return paths

    def remove(self, container_id: str) -> bool:
        home = self.home(container_id)
        return _remove_unwritten(home) or self.remove_directory(home)

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

    def usage(self, container_id: str) -> int:
        return _measure(f"{self.home(container_id)}/upper", of_disk=True)

    # -- inside

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


def _remove_unwritten(home: str) -> bool:
    """Remove a container's directories when it wrote nothing, as most with ``--rm``: no walk. False: look closer."""
    try:
        os.rmdir(f"{home}/upper")  # refused, with nothing changed, when there is anything in it
        for name in _LEFT_BY_KERNEL:
            if name.endswith("volatile"):
                os.unlink(f"{home}/{name}/dirty")
            os.rmdir(f"{home}/{name}")
        os.rmdir(home)
    except OSError:
        return False
    return True


def _missing(chain_id: str) -> NotFound:
    return NotFound(f"layer {chain_id} is missing", hint="remove the image and pull it again")


def _measure(path: str, *, of_disk: bool) -> int:
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
