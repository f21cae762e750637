"""Two unpacked layers compared as they lie on disk, whiteouts and all: is one what its archive says?"""

from __future__ import annotations

import hashlib
import os
import stat

from cloison.archive.tree import is_whiteout
from cloison.archive.union import read_xattrs
from cloison.linux.paths import open_in_root
from cloison.linux.trees import list_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CHUNK = 1 << 20
_OPAQUE = "trusted.overlay.opaque"


def differences(one_fd: int, other_fd: int, *, without_times: Collection[bytes]) -> Iterator[bytes]:
    """Paths below two directories that are not the same in both: kind, owner, mode, times, attributes, content.

    ``without_times`` are directories that nobody gave a time ("" is the root). Raises: OSError.
    """
    yield from _compare(one_fd, other_fd, b"", set(without_times))


def _compare(one_fd: int, other_fd: int, path: bytes, without_times: set[bytes]) -> Iterator[bytes]:
    names, others = (set(map(os.fsencode, list_names(fd))) for fd in (one_fd, other_fd))
    for name in sorted(names | others):
        below = path + b"/" + name if path else name
        if name not in names or name not in others:
            yield below
            continue
        kinds = [os.stat(name, dir_fd=fd, follow_symlinks=False) for fd in (one_fd, other_fd)]
        if all(stat.S_ISDIR(info.st_mode) for info in kinds):
            one, other = (open_in_root(fd, name, flags=_DIRECTORY, no_symlinks=True) for fd in (one_fd, other_fd))
            try:
                yield from _compare(one, other, below, without_times)
            finally:
                os.close(one)
                os.close(other)
        elif _describe(one_fd, name, info=kinds[0]) != _describe(other_fd, name, info=kinds[1]):
            yield below
    timed = path not in without_times
    if _describe_directory(one_fd, timed) != _describe_directory(other_fd, timed):
        yield path  # after what is in it, which tells more


def _describe_directory(fd: int, with_time: bool) -> tuple[object, ...]:
    info = os.fstat(fd)
    try:
        opaque = os.getxattr(fd, _OPAQUE)
    except OSError:
        opaque = b""
    times = info.st_mtime_ns if with_time else 0
    return (info.st_mode, info.st_uid, info.st_gid, times, read_xattrs(fd), opaque)


def _describe(parent_fd: int, name: bytes, *, info: os.stat_result) -> tuple[object, ...]:
    if is_whiteout(info):
        return ("whiteout",)
    same = (info.st_mode, info.st_uid, info.st_gid, info.st_rdev, info.st_nlink, info.st_mtime_ns)
    if stat.S_ISLNK(info.st_mode):
        return (*same, os.readlink(name, dir_fd=parent_fd))
    if not stat.S_ISREG(info.st_mode):
        return same
    fd = open_in_root(parent_fd, name, flags=_FILE, no_symlinks=True)
    try:
        return (*same, info.st_size, read_xattrs(fd), _content_digest(fd))
    finally:
        os.close(fd)


def _content_digest(fd: int) -> bytes:
    found = hashlib.sha256()
    while piece := os.read(fd, _CHUNK):
        found.update(piece)
    return found.digest()
