"""Trees that somebody else filled: removed and measured through descriptors, never by path, never across a mount."""

from __future__ import annotations

import errno
import os
import stat

from cloison.linux.paths import open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# deeper directories are moved up before they are emptied, so that neither descriptors nor the stack run out
_MAX_DEPTH = 64


def list_names(fd: int) -> list[str]:
    """What is in a directory now; btrfs lists through a descriptor what was there when it was opened, or rewound."""
    os.lseek(fd, 0, os.SEEK_SET)
    return os.listdir(fd)


def remove_tree(parent_fd: int, name: str | bytes) -> bool:
    """Remove a file or a whole directory. Returns whether it was there.

    Links are removed, not followed. Raises: OSError; EXDEV or EBUSY when something is mounted inside, which then stays.
    """
    try:
        os.unlink(name, dir_fd=parent_fd)
        return True
    except FileNotFoundError:
        return False
    except IsADirectoryError:
        pass
    except PermissionError:  # POSIX lets unlink(2) of a directory say EPERM
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
            raise
    fd = open_in_root(parent_fd, os.fsencode(name), flags=_DIRECTORY, no_symlinks=True, no_xdev=True)
    try:
        _empty(fd, top_fd=fd, depth=0)
        while _has_entries(fd):  # what was moved up
            _empty(fd, top_fd=fd, depth=0)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent_fd)
    return True


def _has_entries(fd: int) -> bool:
    with os.scandir(fd) as entries:
        return next(entries, None) is not None


def _empty(fd: int, *, top_fd: int, depth: int) -> None:
    # surrogateescape brings any byte back unharmed
    with os.scandir(fd) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        if not is_directory:
            os.unlink(name, dir_fd=fd)
        elif depth < _MAX_DEPTH:
            _remove_directory(fd, name, top_fd=top_fd, depth=depth + 1)
        else:
            os.rename(name, f".cloison-{os.urandom(8).hex()}", src_dir_fd=fd, dst_dir_fd=top_fd)


def _remove_directory(fd: int, name: str, *, top_fd: int, depth: int) -> None:
    try:
        os.rmdir(name, dir_fd=fd)  # most leaves are empty: one call instead of four
        return
    except OSError as err:
        if err.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    child = open_in_root(fd, os.fsencode(name), flags=_DIRECTORY, no_symlinks=True, no_xdev=True)
    try:
        _empty(child, top_fd=top_fd, depth=depth)
    finally:
        os.close(child)
    os.rmdir(name, dir_fd=fd)


def usage_of(path: str) -> int:
    """Bytes on disk of a file, or of a directory with all that is in it; 0 when it is not there."""
    try:
        fd = os.open(path, _DIRECTORY)
    except NotADirectoryError:
        return os.lstat(path).st_blocks * 512
    except OSError:
        try:
            return os.lstat(path).st_blocks * 512  # a symbolic link
        except FileNotFoundError:
            return 0
    try:
        return tree_usage(fd)
    finally:
        os.close(fd)


def tree_usage(fd: int) -> int:
    """Bytes of disk that everything below the directory ``fd`` occupies; hard links count once."""
    return sum(info.st_blocks * 512 for info in _each(fd))


def tree_content(fd: int) -> int:
    """Bytes of all regular files below ``fd`` without their holes; hard links count once."""
    return sum(min(info.st_size, info.st_blocks * 512) for info in _each(fd) if stat.S_ISREG(info.st_mode))


def _each(fd: int) -> Iterator[os.stat_result]:
    seen: set[tuple[int, int]] = set()
    for _path, _directories, files, directory_fd in os.fwalk(".", dir_fd=fd, follow_symlinks=False):
        yield os.fstat(directory_fd)
        for name in files:
            try:
                info = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if info.st_nlink > 1:
                if (info.st_dev, info.st_ino) in seen:
                    continue
                seen.add((info.st_dev, info.st_ino))
            yield info
