"""A directory's content copied into another by descriptors: owners, modes, times, links and extended attributes."""

from __future__ import annotations

import errno
import os
import stat

from cloison.errors import Unsupported

_DEEPEST = 100
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SOURCE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_TARGET = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 24


def copy_tree(source: int, target: int) -> None:
    """The directory ``source`` into the empty directory ``target``, with its own owner and mode, too.

    The source may be somebody else's and change meanwhile; nobody else may know the target. Links are copied, never
    followed; sockets are left out; what is mounted inside is not entered.
    Raises: OSError (ENOSPC when the target is full); Unsupported below a depth of 100.
    """
    _Copy(source, target).directory(source, target, way="", depth=0)


class _Copy:
    def __init__(self, source: int, target: int) -> None:
        self._device = os.fstat(source).st_dev
        self._target = target
        self._linked: dict[int, str] = {}  # inode with several names -> its first one below the target

    def directory(self, source: int, target: int, *, way: str, depth: int) -> None:
        if depth > _DEEPEST:
            raise Unsupported("cannot copy a directory", why=f"there are more than {_DEEPEST} levels below it")
        for name in os.listdir(source):
            self._entry(source, target, name, way=f"{way}{name}", depth=depth)
        _finish(source, target)

    def _entry(self, source: int, target: int, name: str, *, way: str, depth: int) -> None:
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=target)
            if status.st_dev == self._device:
                self._open_both(source, target, name, flags=(_DIRECTORY, _DIRECTORY), way=way, depth=depth)
        elif status.st_nlink > 1 and status.st_ino in self._linked:
            os.link(self._linked[status.st_ino], name, src_dir_fd=self._target, dst_dir_fd=target)
        elif kind == stat.S_IFREG:
            self._open_both(source, target, name, flags=(_SOURCE, _TARGET), way=way, depth=depth)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        elif kind != stat.S_IFSOCK:
            os.mknod(name, status.st_mode & ~0o7777, status.st_rdev, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target)
            os.chmod(name, status.st_mode & 0o7777, dir_fd=target)
        if status.st_nlink > 1 and kind not in (stat.S_IFDIR, stat.S_IFSOCK):
            self._linked.setdefault(status.st_ino, way)

    def _open_both(self, source: int, target: int, name: str, *, flags: tuple[int, int], way: str, depth: int) -> None:
        here = os.open(name, flags[0], dir_fd=source)
        try:
            there = os.open(name, flags[1], 0o600, dir_fd=target)
            try:
                if flags[0] == _DIRECTORY:
                    self.directory(here, there, way=f"{way}/", depth=depth + 1)
                else:
                    _content(here, there)
                    _finish(here, there)
            finally:
                os.close(there)
        finally:
            os.close(here)


def _content(source: int, target: int) -> None:
    if not stat.S_ISREG(os.fstat(source).st_mode):
        raise OSError(errno.ESTALE, "the file was replaced while it was copied")
    while os.sendfile(target, source, None, _CHUNK):
        pass


def _finish(source: int, target: int) -> None:
    """Owner, extended attributes, mode and times of the source; a change of owner would take set-user-ID away."""
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    for name in os.listxattr(source):
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as err:
            if err.errno not in (errno.ENOTSUP, errno.EPERM, errno.ENODATA):  # not every file system has every kind
                raise
    os.fchmod(target, status.st_mode & 0o7777)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
