"""Reading one small file of a root that is not mounted: topmost directory first, as overlay would show it.

Hot path: `run` reads /etc/passwd and /etc/group so. No component may be a link, which needs no openat2; a root where
one is (unusual for /etc) is read by the slower walk of `cloison.linux.paths`, inside each layer alone.
"""

from __future__ import annotations

import errno
import os
import stat

from cloison.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO in the image's place must not hang us (CVE-2024-9676)
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OPAQUE_MARK = "trusted.overlay.opaque"
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


def read_small_file(directories: Iterable[str], path: str, *, limit: int = 1 << 20) -> bytes:
    """Bytes of ``path`` in the first directory that has it, or deletes it; b"" when none has.

    Raises: InvalidArgument when it is no regular file, or larger than ``limit``.
    """
    parts = path.strip("/").split("/")
    for directory in directories:
        found = _look(directory, parts, path=path, limit=limit)
        if found is not None:
            return found
    return b""


def _look(directory: str, parts: list[str], *, path: str, limit: int) -> bytes | None:
    """The file's bytes, b"" when this layer deletes it, None when it says nothing of it."""
    try:
        fd = os.open(directory, _DIRECTORY)
    except OSError as err:
        if err.errno in _ABSENT:
            return None
        raise
    try:
        for depth, part in enumerate(parts[:-1]):
            status = _lstat(fd, part)
            if status is None:
                return _absent(directory, parts[:depth])
            if stat.S_ISLNK(status.st_mode):
                return _look_through_links(directory, path, limit=limit)
            if not stat.S_ISDIR(status.st_mode):
                return b""  # a whiteout, or a file that hides the directories below
            child = os.open(part, _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = child
        status = _lstat(fd, parts[-1])
        if status is None:
            return _absent(directory, parts[:-1])
        if stat.S_ISLNK(status.st_mode):
            return _look_through_links(directory, path, limit=limit)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            return b""
        return _read_last(fd, parts[-1], path=path, limit=limit)
    finally:
        os.close(fd)


def _absent(directory: str, parents: list[str]) -> bytes | None:
    """b"" when a directory on the way is opaque, so that the layers below do not show there; else None."""
    for depth in range(1, len(parents) + 1):
        if is_opaque("/".join((directory, *parents[:depth]))):
            return b""
    return None


def is_opaque(path: str) -> bool:
    """Whether a directory hides what lies under it in the layers below (overlayfs.rst, "opaque directories")."""
    try:
        return os.getxattr(path, _OPAQUE_MARK, follow_symlinks=False) == b"y"
    except OSError:  # almost always: there is no mark
        return False


def _read_last(fd: int, name: str, *, path: str, limit: int) -> bytes:
    file = os.open(name, _FILE, dir_fd=fd)
    try:
        return _read_regular(file, path, limit=limit)
    finally:
        os.close(file)


def _read_regular(fd: int, path: str, *, limit: int) -> bytes:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
        raise InvalidArgument(f"the image's {path} is unusable", why=f"it is no regular file of at most {limit} bytes")
    return os.read(fd, limit)


def _look_through_links(directory: str, path: str, *, limit: int) -> bytes | None:
    from cloison.linux.paths import open_in_root

    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_in_root(root, path.encode(), flags=_FILE & ~os.O_NOFOLLOW)
    except OSError as err:
        if err.errno in _ABSENT:
            return None
        raise
    finally:
        os.close(root)
    try:
        return _read_regular(fd, path, limit=limit)
    finally:
        os.close(fd)


def _lstat(fd: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
