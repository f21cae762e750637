"""Trees copied through descriptors: every kind of file, hard links, owners, times; blocks shared where the disk can."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from cloison.linux.paths import open_in_root
from cloison.linux.trees import list_names

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FICLONE = 0x40049409  # linux/fs.h
_CHUNK = 16 << 20
# what tells where holes are is not in every file system
_NO_HOLES = (errno.EINVAL, errno.EOPNOTSUPP)


def copy_tree(source_fd: int, target_fd: int) -> None:
    """All that is in one directory into another, which is empty; then its own attributes. Raises: OSError."""
    _Copy().directory(source_fd, target_fd)


def underlay_tree(source_fd: int, target_fd: int) -> None:
    """What the target has not, from the source; times of the target's directories stay. Raises: OSError."""
    before = os.fstat(target_fd)
    for name in list_names(source_fd):
        info = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        try:
            there = os.stat(name, dir_fd=target_fd, follow_symlinks=False)
        except FileNotFoundError:
            if stat.S_ISDIR(info.st_mode):
                _Copy().subdirectory(source_fd, target_fd, name=name)
            else:
                copy_entry(source_fd, target_fd, name=name, info=info)
            continue
        if stat.S_ISDIR(info.st_mode) and stat.S_ISDIR(there.st_mode):
            source, target = (os.open(name, _DIRECTORY, dir_fd=fd) for fd in (source_fd, target_fd))
            try:
                underlay_tree(source, target)
            finally:
                os.close(source)
                os.close(target)
    os.utime(target_fd, ns=(before.st_atime_ns, before.st_mtime_ns))


class _Copy:
    def __init__(self) -> None:
        self._linked: dict[tuple[int, int], tuple[int, str]] = {}
        self._held: list[int] = []

    def directory(self, source_fd: int, target_fd: int) -> None:
        try:
            self._directory(source_fd, target_fd)
        finally:
            for fd in self._held:
                os.close(fd)

    def _directory(self, source_fd: int, target_fd: int) -> None:
        for name in list_names(source_fd):
            info = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                self.subdirectory(source_fd, target_fd, name=name)
            elif info.st_nlink > 1 and (info.st_dev, info.st_ino) in self._linked:
                first_fd, first = self._linked[info.st_dev, info.st_ino]
                os.link(first, name, src_dir_fd=first_fd, dst_dir_fd=target_fd, follow_symlinks=False)
            else:
                copy_entry(source_fd, target_fd, name=name, info=info)
                if info.st_nlink > 1:
                    held = os.dup(target_fd)
                    self._held.append(held)
                    self._linked[info.st_dev, info.st_ino] = held, name
        copy_attributes(source_fd, target_fd)

    def subdirectory(self, source_fd: int, target_fd: int, *, name: str) -> None:
        source = open_in_root(source_fd, os.fsencode(name), flags=_DIRECTORY, no_symlinks=True, no_xdev=True)
        try:
            os.mkdir(name, 0o700, dir_fd=target_fd)
            target = os.open(name, _DIRECTORY, dir_fd=target_fd)
            try:
                self._directory(source, target)
            finally:
                os.close(target)
        finally:
            os.close(source)


def copy_entry(source_fd: int, target_fd: int, *, name: str, info: os.stat_result) -> None:
    """One entry that is no directory, under the same name."""
    if stat.S_ISREG(info.st_mode):
        _copy_file(source_fd, target_fd, name=name)
        return
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(name, dir_fd=source_fd), name, dir_fd=target_fd)
    elif stat.S_ISSOCK(info.st_mode):
        return
    else:
        os.mknod(name, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev, dir_fd=target_fd)
    os.chown(name, info.st_uid, info.st_gid, dir_fd=target_fd, follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=target_fd)
    times = (info.st_atime_ns, info.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=target_fd, follow_symlinks=False)


def _copy_file(source_fd: int, target_fd: int, *, name: str) -> None:
    source = open_in_root(source_fd, os.fsencode(name), flags=_FILE, no_symlinks=True, no_xdev=True)
    try:
        target = os.open(name, _NEW, 0o600, dir_fd=target_fd)
        try:
            _copy_content(source, target)
            copy_attributes(source, target)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy_content(source: int, target: int) -> None:
    size = os.fstat(source).st_size
    if not size:
        return
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return
    except OSError as err:
        if err.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL):
            raise
    end = 0
    while end < size:
        start, end = _next_data(source, end, size=size)
        while start < end:
            count = os.copy_file_range(source, target, min(end - start, _CHUNK), start, start)
            if not count:
                break
            start += count
    os.ftruncate(target, size)


def _next_data(fd: int, start: int, *, size: int) -> tuple[int, int]:
    """Where the next piece that is no hole begins and ends."""
    try:
        begin = os.lseek(fd, start, os.SEEK_DATA)
        return begin, os.lseek(fd, begin, os.SEEK_HOLE)
    except OSError as err:
        if err.errno == errno.ENXIO:
            return size, size
        if err.errno in _NO_HOLES:
            return start, size
        raise


def copy_attributes(source: int, target: int, *, info: os.stat_result | None = None) -> None:
    """Owner, then mode and capabilities, which a change of the owner would clear; times last.

    ``info`` is what the source was, where it has been changed since.
    """
    info = info or os.fstat(source)
    os.fchown(target, info.st_uid, info.st_gid)
    os.fchmod(target, stat.S_IMODE(info.st_mode))
    for name in os.listxattr(source):
        if name == "security.capability" or name.startswith("user."):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
