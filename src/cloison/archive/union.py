"""Unpacked layers read as the one tree that overlay would show, without mounting anything.

Every directory and file is opened below its layer's root with openat2 and without following links, so that a container
that changes its files meanwhile can neither lead out of them nor block us.
Source: kernel overlayfs.rst, "whiteouts and opaque directories".
"""

from __future__ import annotations

import os
import stat

from cloison.archive.budget import DEFAULT_LIMITS
from cloison.archive.tree import OPAQUE_XATTR, is_whiteout
from cloison.errors import InvalidArgument
from cloison.linux.paths import open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_DIRECTORY = _ROOT | os.O_NOFOLLOW
# O_NONBLOCK: a FIFO that has taken the file's place must not hang us
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Item:
    """One name of the merged tree. Plain slots, since an image has 100,000 of them."""

    __slots__ = ("info", "layers", "path", "places")

    def __init__(self, path: bytes, info: os.stat_result, layer: int) -> None:
        self.path = path  # below the root, which is b""
        self.info = info  # of the topmost that has it
        self.layers = [layer]  # which show here, topmost first; several for a directory alone
        self.places = [(info.st_dev, info.st_ino)]  # of the same; equal places are equal trees

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.info.st_mode)


class Union:
    """A context manager over directories, topmost first; others may change them while it reads."""

    def __init__(self, directories: Sequence[str], *, hidden: Collection[str] = ()) -> None:
        """``hidden`` are names that a driver uses for itself. Raises: OSError for a directory that is not there."""
        self._hidden = hidden
        self._fds: list[int] = []
        try:
            for path in directories:
                self._fds.append(os.open(path, _ROOT))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Union:
        return self

    def __exit__(self, *_failure: object) -> None:
        self.close()

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def root(self) -> Item:
        """The merged root; a layer whose root is opaque hides those below it."""
        item = Item(b"", os.fstat(self._fds[0]), 0)
        for layer in range(1, len(self._fds)):
            if _is_opaque(self._fds[layer - 1]):
                break
            _add(item, os.fstat(self._fds[layer]), layer)
        return item

    def children(self, directory: Item) -> list[Item]:
        """What is in a directory, by name. Raises: InvalidArgument when it is too deep."""
        if directory.path.count(b"/") >= DEFAULT_LIMITS.depth:
            raise InvalidArgument("cannot read the tree", why="its directories are nested too deeply")
        found: dict[str, Item] = {}
        closed = set(self._hidden)  # names about which the layers below have no say
        for layer in directory.layers:
            try:
                fd = self._open_directory(directory.path, layer)
            except FileNotFoundError:  # removed while we read
                continue
            try:
                self._merge(fd, layer, directory, found=found, closed=closed)
            finally:
                os.close(fd)
        return [found[name] for name in sorted(found, key=os.fsencode)]

    def _merge(self, fd: int, layer: int, directory: Item, *, found: dict[str, Item], closed: set[str]) -> None:
        is_last = layer == directory.layers[-1]
        with os.scandir(fd) as entries:
            for entry in entries:
                name = entry.name
                if name in closed:
                    continue
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not stat.S_ISDIR(info.st_mode):
                    closed.add(name)
                    if name not in found and not is_whiteout(info):
                        found[name] = Item(_join(directory.path, name), info, layer)
                    continue
                if name in found:
                    _add(found[name], info, layer)
                else:
                    found[name] = Item(_join(directory.path, name), info, layer)
                if not is_last and _hides(fd, name):
                    closed.add(name)

    def open(self, item: Item) -> int:
        """A regular file for reading, or a directory; the caller closes it. Raises: OSError."""
        if item.is_directory:
            return self._open_directory(item.path, item.layers[0])
        fd = open_in_root(self._fds[item.layers[0]], item.path, flags=_FILE, no_symlinks=True, no_xdev=True)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise FileNotFoundError  # another file has its name by now
        return fd

    def link_target(self, item: Item) -> bytes:
        """Where a symbolic link points. Raises: OSError."""
        parent, _, name = item.path.rpartition(b"/")
        fd = self._open_directory(parent, item.layers[0])
        try:
            return os.readlink(name, dir_fd=fd)
        finally:
            os.close(fd)

    def _open_directory(self, path: bytes, layer: int) -> int:
        return open_in_root(self._fds[layer], path, flags=_DIRECTORY, no_symlinks=True, no_xdev=True)


def read_xattrs(fd: int) -> dict[bytes, bytes]:
    """The extended attributes that a layer keeps: file capabilities and the users' own, not overlay's."""
    try:
        names = [name for name in os.listxattr(fd) if _is_kept(name)]
        return {os.fsencode(name): os.getxattr(fd, name) for name in names}
    except OSError:
        return {}  # not every file system has them


def _is_kept(name: str) -> bool:
    return name == "security.capability" or (name.startswith("user.") and not name.startswith("user.overlay."))


def _add(item: Item, info: os.stat_result, layer: int) -> None:
    item.layers.append(layer)
    item.places.append((info.st_dev, info.st_ino))


def _join(parent: bytes, name: str) -> bytes:
    return parent + b"/" + os.fsencode(name) if parent else os.fsencode(name)


def _hides(parent_fd: int, name: str) -> bool:
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
    except OSError:
        return False
    try:
        return _is_opaque(fd)
    finally:
        os.close(fd)


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, OPAQUE_XATTR) == b"y"
    except OSError:  # almost always: there is no mark
        return False
