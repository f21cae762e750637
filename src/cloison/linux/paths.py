"""Paths inside a root that somebody else controls; every answer is a descriptor, never a path.

A path string that is resolved first and used later is the root cause of some thirty container escapes. openat2(2)
resolves inside the root in the kernel: ``..`` and absolute symbolic links stay in it whatever is renamed meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from cloison.errors import InvalidArgument, NotFound, Unsupported

# openat2(2), struct open_how.resolve
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10
_MAX_RETRIES = 32
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_in_root(
    root_fd: int, path: bytes, *, flags: int, mode: int = 0, no_symlinks: bool = False, no_xdev: bool = False
) -> int:
    """Open a path as if ``root_fd`` were ``/``. The descriptor is close-on-exec, and the caller's to close.

    ``no_symlinks`` refuses a symbolic link anywhere (ELOOP), ``no_xdev`` a mount point (EXDEV).
    Raises: OSError; Unsupported on a kernel before 5.6.
    """
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
    if no_symlinks:
        resolve |= RESOLVE_NO_SYMLINKS
    if no_xdev:
        resolve |= RESOLVE_NO_XDEV
    if b"\0" in path:
        raise OSError(errno.EINVAL, "a path holds no NUL", path)
    from cloison.linux.libc import OPENAT2, address_of, syscall  # 1 ms, and not every command opens something here

    how = bytearray(b"".join(word.to_bytes(8, sys.byteorder) for word in (flags | os.O_CLOEXEC, mode, resolve)))
    # The kernel reads "" as ENOENT; as a path in a root it is the root itself.
    name = bytearray((path or b".") + b"\0")
    for _attempt in range(_MAX_RETRIES):
        try:
            return syscall(OPENAT2, root_fd, address_of(name), address_of(how), len(how))
        except OSError as err:
            if err.errno == errno.ENOSYS:
                raise _too_old() from err
            # EAGAIN: somebody renamed while ".." was resolved, and the kernel could not prove that we are still inside.
            if err.errno not in (errno.EAGAIN, errno.EINTR):
                raise OSError(err.errno, err.strerror, path) from None
    raise OSError(errno.EAGAIN, "the path is being renamed all the time", path)


def make_directories(root_fd: int, path: bytes, *, mode: int) -> int:
    """mkdir -p inside the root; gives back the last directory's descriptor, which is the caller's to close.

    Symbolic links are followed, inside the root. Existing directories keep their mode. ``mode`` is exact (no umask).
    Raises: OSError (NotADirectoryError when a file is in the way).
    """
    try:
        return open_in_root(root_fd, path, flags=_DIRECTORY)
    except FileNotFoundError:
        pass
    done = b""
    fd = open_in_root(root_fd, b"", flags=_DIRECTORY)
    try:
        for name in _components(path):
            done = done + b"/" + name
            following = _enter(root_fd, done, parent_fd=fd, name=name, mode=mode)
            os.close(fd)
            fd = following
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_regular(root_fd: int, path: bytes, *, limit: int) -> bytes:
    """All bytes of a regular file inside the root, at most ``limit``: an untrusted image can neither hang nor fill us.

    Raises: NotFound when there is none; InvalidArgument when it is a device, pipe, directory or too large; OSError.
    """
    shown = path.decode(errors="backslashreplace")
    try:
        # O_NONBLOCK: a pipe has no writer to wait for; O_NOCTTY: a terminal must not become ours.
        fd = _open_quickly(root_fd, path, flags=os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError) as err:
        raise NotFound(f"{shown} does not exist in the container's root") from err
    except OSError as err:
        if err.errno in (errno.ENXIO, errno.ELOOP, errno.ENODEV):
            raise InvalidArgument(f"cannot read {shown}", why=os.strerror(err.errno).lower()) from err
        raise
    try:
        return _read_checked(fd, limit, shown=shown)
    finally:
        os.close(fd)


def _open_quickly(root_fd: int, path: bytes, *, flags: int) -> int:
    """`open_in_root`; step by step, which Python can do by itself, while there is no link on the way."""
    *directories, name = _components(path)
    parent = root_fd
    try:
        for directory in directories:
            following = os.open(directory, _STEP, dir_fd=parent)
            if parent != root_fd:
                os.close(parent)
            parent = following
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError as err:
        if err.errno not in (errno.ELOOP, errno.ENOTDIR):  # a link; not a directory, but perhaps a link
            raise
    finally:
        if parent != root_fd:
            os.close(parent)
    return open_in_root(root_fd, path, flags=flags)


def _read_checked(fd: int, limit: int, *, shown: str) -> bytes:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise InvalidArgument(f"cannot read {shown}", why="it is not a regular file")
    pieces: list[bytes] = []
    left = limit + 1  # st_size may lie, or grow
    while left > 0 and (piece := os.read(fd, min(left, 1 << 16))):
        pieces.append(piece)
        left -= len(piece)
    if left <= 0 or status.st_size > limit:
        raise InvalidArgument(f"cannot read {shown}", why=f"it is larger than {limit} bytes")
    return b"".join(pieces)


def _components(path: bytes) -> list[bytes]:
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if b".." in names:
        # Lexically it would mean something else than through a symbolic link: none is made so.
        raise OSError(errno.EINVAL, "a directory to make cannot be named with '..'", path)
    return names


def _enter(root_fd: int, path: bytes, *, parent_fd: int, name: bytes, mode: int) -> int:
    """Descriptor of the directory ``path`` (below ``root_fd``), made in ``parent_fd`` where it is missing."""
    try:
        return open_in_root(root_fd, path, flags=_DIRECTORY)
    except FileNotFoundError:
        pass
    try:
        os.mkdir(name, mode, dir_fd=parent_fd)
    except FileExistsError:  # made by somebody meanwhile, or a dangling link: the open below tells them apart
        return open_in_root(root_fd, path, flags=_DIRECTORY)
    fd = open_in_root(parent_fd, name, flags=_DIRECTORY | os.O_NOFOLLOW)
    os.fchmod(fd, mode)
    return fd


def _too_old() -> Unsupported:
    return Unsupported(
        "cannot open a path safely inside a container",
        why="this kernel, or a seccomp filter around us, has no openat2(2)",
        hint="use Linux 5.6 or later",
    )
