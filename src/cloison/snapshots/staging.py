"""Layers on their way in: unpacked into a locked directory that nobody looks at, then renamed to where all do."""

from __future__ import annotations

import errno
import os

from cloison.archive.unpack import Applied, apply_layer
from cloison.linux.paths import open_in_root
from cloison.linux.trees import remove_tree
from cloison.store.atomic import disk_error
from cloison.store.locks import Claim, Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloison.archive.decompress import Readable

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_SUFFIX = ".lock"
TREE_SUFFIX = ".tree"  # beside what is unpacked, where a driver keeps whole trees


class Staged:
    """One layer that is unpacked but not visible yet (see `StagedLayer`)."""

    def __init__(self, incoming: str, layer_path: Callable[[str], str]) -> None:
        self._layer_path = layer_path
        token = os.urandom(8).hex()
        self._path = f"{incoming}/{token}"
        # the lock before the directory: whoever sweeps can tell that the directory is somebody's
        try:
            self._lock = Lock(self._path + _LOCK_SUFFIX)
        except OSError as err:
            raise disk_error(self._path, err) from err
        self.applied = Applied(diff_id="", size_bytes=0, entries=0)
        try:
            os.mkdir(self._path, 0o755)
            os.chmod(self._path, 0o755)
            self.fd = os.open(self._path, _DIRECTORY)
        except OSError as err:
            self._release()
            raise disk_error(self._path, err) from err

    def fill(self, stream: Readable) -> None:
        self.applied = apply_layer(stream, root_fd=self.fd)

    def commit(self, chain_id: str, *, below: Sequence[str] = ()) -> None:
        self.adopt(below)
        try:
            os.rename(self._finished(), self._layer_path(chain_id))
        except OSError as err:
            # a layer of the same chain ID has the same content: whoever came first may keep the name
            if err.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise disk_error(self._layer_path(chain_id), err) from err
        self.discard()

    def adopt(self, below: Sequence[str]) -> None:
        """Directories that the layer does not describe look as below it, or overlay would show our defaults."""
        if not self.applied.implied or not below:
            return
        lower_fds = [os.open(self._layer_path(layer), _DIRECTORY) for layer in reversed(below)]
        try:
            for path in self.applied.implied:
                _copy_attributes(lower_fds, self.fd, path=path)
        finally:
            for fd in lower_fds:
                os.close(fd)

    def _finished(self) -> str:
        """What is renamed to its name."""
        return self._path

    def discard(self) -> None:
        if self.fd < 0:
            return
        os.close(self.fd)
        self.fd = -1
        try:
            self._remove(self._path)
        finally:
            self._release()

    def _remove(self, path: str) -> None:
        _remove(path)

    def _release(self) -> None:
        os.unlink(self._path + _LOCK_SUFFIX)
        self._lock.release()


def stage(stream: Readable, *, incoming: str, layer_path: Callable[[str], str]) -> Staged:
    """Unpack a stream. Raises: InvalidArgument, Unavailable, Denied; then nothing is left."""
    return filled(Staged(incoming, layer_path), stream)


def filled(staged: Staged, stream: Readable) -> Staged:
    """Unpack into what is staged, which is thrown away when that fails."""
    try:
        staged.fill(stream)
    except BaseException:
        staged.discard()
        raise
    return staged


def sweep(incoming: str) -> int:
    """Remove what crashes left: directories whose lock is free, and layers whose removal was cut short."""
    removed = 0
    try:
        names = os.listdir(incoming)
    except FileNotFoundError:
        return 0
    for name in names:
        if name.endswith(".gone"):
            removed += _remove(f"{incoming}/{name}")
        elif name.endswith(_LOCK_SUFFIX):
            removed += _remove_abandoned(f"{incoming}/{name}")
        elif name.endswith(".claim"):
            removed += _remove_claim(f"{incoming}/{name}")
    return removed


def _remove_abandoned(lock_path: str) -> bool:
    try:
        lock = Lock(lock_path, wait=False)
    except BlockingIOError:
        return False
    try:
        for path in (lock_path.removesuffix(_LOCK_SUFFIX), lock_path.removesuffix(_LOCK_SUFFIX) + TREE_SUFFIX):
            _remove(path)
        os.unlink(lock_path)
    finally:
        lock.release()
    return True


def _remove_claim(path: str) -> bool:
    try:
        Claim(path, wait=False).release()
    except BlockingIOError:
        return False
    return True


def _remove(path: str) -> bool:
    parent_fd = os.open(os.path.dirname(path), _DIRECTORY)
    try:
        return remove_tree(parent_fd, os.path.basename(path))
    except FileNotFoundError:
        return False  # somebody else sweeps at the same time
    finally:
        os.close(parent_fd)


def _copy_attributes(lower_fds: Sequence[int], root_fd: int, *, path: bytes) -> None:
    for lower_fd in lower_fds:
        try:
            source = open_in_root(lower_fd, path, flags=_DIRECTORY, no_xdev=True)
        except OSError:
            continue
        try:
            _copy_between(source, root_fd, path=path)
        finally:
            os.close(source)
        return


def _copy_between(source: int, root_fd: int, *, path: bytes) -> None:
    try:
        target = open_in_root(root_fd, path, flags=_DIRECTORY, no_xdev=True)
    except OSError:
        return  # a later member of the layer replaced it
    try:
        info = os.fstat(source)
        os.fchown(target, info.st_uid, info.st_gid)
        os.fchmod(target, info.st_mode & 0o7777)
        os.utime(target, ns=(info.st_mtime_ns, info.st_mtime_ns))
    finally:
        os.close(target)
