"""Writing to disk so that a reader, or a crash, sees the old file or the new one and nothing between.

Data root: ``durable=True``, temp file, fsync, rename, fsync of the directory. Run root (tmpfs): rename alone.
"""

from __future__ import annotations

import errno
import os

from cloison.errors import CloisonError, Denied, NoSpace, Unavailable

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def write_file(path: str, data: bytes | str, *, durable: bool, mode: int = 0o600) -> None:
    """Replace ``path`` by a file of these bytes. Raises: Unavailable (disk full), Denied."""
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        _write_new(temporary, data.encode() if isinstance(data, str) else data, durable=durable, mode=mode)
        os.rename(temporary, path)
        if durable:
            sync_directory(os.path.dirname(path))
    except OSError as err:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise disk_error(path, err) from err


def _write_new(path: str, data: bytes, *, durable: bool, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def read_file(path: str, *, limit: int = 16 << 20) -> bytes:
    """All of a small file of ours. Raises: OSError; ValueError above ``limit``."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(fd).st_size
        if size > limit:
            raise ValueError(f"{path} has {size} bytes, more than {limit}")
        pieces = []
        while piece := os.read(fd, 1 << 16):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)


def sync_directory(path: str) -> None:
    """Make renames and creations in this directory survive a power cut."""
    fd = os.open(path, _DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_private_directory(path: str) -> None:
    """mkdir -p with 0700 for every part that is missing, not for the last one alone as `os.makedirs` does.

    Other users' programs must not reach setuid files below (CVE-2024-25621). What exists keeps its mode.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_private_directory(os.path.dirname(path))
        make_private_directory(path)
    except OSError as err:
        raise disk_error(path, err) from err


def disk_error(path: str, err: OSError) -> CloisonError:
    """An OSError about one of our files, as an error for people."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"cannot write {path}")
    if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Denied(
            f"cannot write {path}",
            why=os.strerror(err.errno).lower(),
            hint="run as root, or set --data-root and --run-root",
        )
    return Unavailable(f"cannot write {path}", why=os.strerror(err.errno or 0).lower())
