"""`import`: a root file system, as a tar stream or a directory, becomes the one layer of an image."""

from __future__ import annotations

import os
import stat

from cloison.archive.decompress import CHUNK, decompress
from cloison.archive.headers import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, FILE, LINK, SYMLINK
from cloison.archive.writer import TarWriter, new_entry
from cloison.errors import InvalidArgument, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.archive.decompress import Readable
    from cloison.archive.headers import Entry
    from cloison.store.blobs import Blobs

_KINDS = {
    stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: SYMLINK, stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE, stat.S_IFIFO: FIFO,
}  # fmt: skip
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def store_stream(stream: Readable, *, blobs: Blobs) -> str:
    """The stream as a blob of plain tar (it is unpacked, and so verified, by the engine); its digest.

    Raises: InvalidArgument when it is empty or damaged, Unavailable when the disk is full.
    """
    plain = decompress(stream)
    with blobs.collector() as out:
        while piece := plain.read(CHUNK):
            out.write(piece)
        if not out.written:
            raise InvalidArgument("cannot import", why="the archive is empty")
    return out.digest


def store_directory(path: str, *, blobs: Blobs) -> str:
    """A directory as a layer: the same files always give the same digest. Mounts below it are not entered.

    Raises: InvalidArgument when it is no directory, or cannot be read; Unavailable when it changes meanwhile.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return _store(fd, blobs)
        finally:
            os.close(fd)
    except (EOFError, FileNotFoundError) as err:
        if not os.path.exists(path):
            raise InvalidArgument(f"open {path}", why="no such file or directory") from err
        raise Unavailable(f"cannot import {path}", why="its files changed while they were read") from err
    except OSError as err:
        raise InvalidArgument(f"cannot import {path}", why=os.strerror(err.errno or 0).lower()) from err


def _store(fd: int, blobs: Blobs) -> str:
    with blobs.collector() as out:
        writer = TarWriter(out)
        _Walk(writer, device=os.fstat(fd).st_dev).directory(fd, b"./")
        writer.finish()
    return out.digest


class _Walk:
    """One pass over a tree, names sorted, hard links kept."""

    def __init__(self, writer: TarWriter, *, device: int) -> None:
        self._writer = writer
        self._device = device
        self._linked: dict[int, bytes] = {}

    def directory(self, fd: int, name: bytes) -> None:
        self._writer.add(self._entry(os.fstat(fd), name, xattrs_of=fd))
        for base in sorted(map(os.fsencode, os.listdir(fd))):
            self._member(fd, base, name=name + base)

    def _member(self, parent_fd: int, base: bytes, *, name: bytes) -> None:
        info = os.stat(base, dir_fd=parent_fd, follow_symlinks=False)
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFSOCK or info.st_dev != self._device:
            return  # a socket without its process is nothing; a mount belongs to the machine
        if kind == stat.S_IFDIR:
            fd = os.open(base, _DIRECTORY, dir_fd=parent_fd)
            try:
                self.directory(fd, name + b"/")
            finally:
                os.close(fd)
        elif info.st_nlink > 1 and info.st_ino in self._linked:
            self._writer.add(new_entry(name, LINK, mode=0o644, link=self._linked[info.st_ino]))
        else:
            self._linked[info.st_ino] = name
            self._other(parent_fd, base, name=name, info=info)

    def _other(self, parent_fd: int, base: bytes, *, name: bytes, info: os.stat_result) -> None:
        if not stat.S_ISREG(info.st_mode):
            entry = self._entry(info, name)
            if stat.S_ISLNK(info.st_mode):
                entry.link = os.readlink(base, dir_fd=parent_fd)
            self._writer.add(entry)
            return
        fd = os.open(base, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
        try:
            self._writer.add(self._entry(os.fstat(fd), name, xattrs_of=fd), fd=fd)
        finally:
            os.close(fd)

    def _entry(self, info: os.stat_result, name: bytes, *, xattrs_of: int = -1) -> Entry:
        kind = _KINDS[stat.S_IFMT(info.st_mode)]
        entry = new_entry(
            name, kind, mode=stat.S_IMODE(info.st_mode), uid=info.st_uid, gid=info.st_gid, mtime_ns=info.st_mtime_ns,
            size=info.st_size if kind == FILE else 0,
        )  # fmt: skip
        if kind in (CHARACTER, BLOCK_DEVICE):
            entry.major, entry.minor = os.major(info.st_rdev), os.minor(info.st_rdev)
        if xattrs_of >= 0:
            entry.xattrs = _xattrs(xattrs_of)
        return entry


def _xattrs(fd: int) -> dict[bytes, bytes]:
    try:
        names = [name for name in os.listxattr(fd) if name == "security.capability" or name.startswith("user.")]
        return {os.fsencode(name): os.getxattr(fd, name) for name in names}
    except OSError:
        return {}  # not every file system has them
