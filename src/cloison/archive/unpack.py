"""A layer's tar stream -> a directory, through descriptors only.

Each member: its parent is opened inside the root (openat2), the name is made there exclusively and never through a
link, owner, mode, xattrs and times are set on the new object. Nothing is looked up by a path that could mean something
else by then. Order of the attributes: owner first, because chown(2) clears setuid bits and file capabilities.
"""

from __future__ import annotations

import errno
import os
import stat

from cloison.archive.budget import DEFAULT_LIMITS, DiskReserve, Limits, bad_archive, shown
from cloison.archive.decompress import decompress
from cloison.archive.headers import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, FILE, LINK, SYMLINK, Entry
from cloison.archive.read_ahead import ReadAhead
from cloison.archive.reader import TarReader
from cloison.archive.tree import OPAQUE_XATTR, WHITEOUT_PREFIX, LayerTree, is_whiteout, split_member
from cloison.errors import CloisonError, Denied, NoSpace, Unavailable
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloison.archive.decompress import Readable

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE_NAME = b".wh..wh..opq"
_SMALL_BYTES = 64 << 10  # of a file that is copied once in memory, to be written at once
_MAX_XATTR_BYTES = 64 << 10  # XATTR_SIZE_MAX, linux/limits.h
_MAX_DROPPED = 100  # names that are told
_NODE_TYPES = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}


class Applied(Record):
    """What a layer was. ``implied`` are directories without a member of their own: their attributes come from below."""

    diff_id: str  # digest of the plain tar stream
    size_bytes: int  # of all regular files
    entries: int
    implied: tuple[bytes, ...] = ()
    dropped_xattrs: tuple[str, ...] = ()  # names of extended attributes that are not kept


def apply_layer(stream: Readable, *, root_fd: int, limits: Limits = DEFAULT_LIMITS) -> Applied:
    """Unpack a layer, compressed or not, into the empty directory ``root_fd``, with whiteouts in overlay's form.

    Raises: InvalidArgument for an archive that is damaged, hostile or ambiguous; Unavailable when the disk is full;
    Denied. What has been written by then stays: the caller throws the directory away.
    """
    ahead = ReadAhead(decompress(stream, limits=limits))
    reader = TarReader(ahead, limits=limits)
    unpacker = _Unpacker(reader, root_fd=root_fd, limits=limits)
    try:
        for entry in reader:
            unpacker.apply(entry)
        unpacker.tree.finish()
    except RecursionError:
        raise bad_archive("directories are nested too deeply") from None
    finally:
        unpacker.tree.close()
        ahead.close()
    return Applied(
        diff_id=ahead.digest(), size_bytes=unpacker.size_bytes, entries=reader.entries,
        implied=unpacker.implied(), dropped_xattrs=tuple(sorted(unpacker.dropped)),
    )  # fmt: skip


class _Unpacker:
    def __init__(self, reader: TarReader, *, root_fd: int, limits: Limits) -> None:
        self.tree = LayerTree(root_fd)
        self.size_bytes = 0
        self.dropped: set[str] = set()
        self._reader = reader
        self._limits = limits
        self._reserve = DiskReserve(root_fd)
        self._has_root = False
        self._written_parent = self._parent = b""

    def implied(self) -> tuple[bytes, ...]:
        """Directories without a member of their own; "" is the root."""
        return (*(() if self._has_root else (b"",)), *self.tree.implied)

    def apply(self, entry: Entry) -> None:
        """Make one member. Raises: InvalidArgument, Unavailable, Denied."""
        try:
            parent, name = self._split(entry.name)
            self.tree.trim()
            self._make(entry, parent=parent, name=name)
        except OSError as err:
            raise _problem(entry, err) from err

    def _split(self, path: bytes) -> tuple[bytes, bytes]:
        """As `split_member`; the parent is most often that of the member before."""
        written, _, name = path.rpartition(b"/")
        if name in (b"", b".", b"..") or len(name) > self._limits.name_bytes:
            return split_member(path, self._limits)
        if written != self._written_parent:
            self._parent, _ = split_member(path, self._limits)
            self._written_parent = written
        return self._parent, name

    def _make(self, entry: Entry, *, parent: bytes, name: bytes) -> None:
        if not name:
            self._make_root(entry)
            return
        parent_fd = self.tree.directory(parent)
        if name.startswith(WHITEOUT_PREFIX):
            self._make_whiteout(entry, name, parent_fd=parent_fd)
        elif entry.kind == FILE:
            self._make_file(entry, name, parent_fd=parent_fd)
        elif entry.kind == DIRECTORY:
            path = parent + b"/" + name if parent else name
            self._finish_directory(entry, path, fd=self.tree.make_directory(path, name, parent_fd=parent_fd))
        elif entry.kind == SYMLINK:
            self._make_symlink(entry, name, parent_fd=parent_fd)
        elif entry.kind == LINK:
            self._make_link(entry, name, parent=parent, parent_fd=parent_fd)
        else:
            self._make_node(entry, name, parent_fd=parent_fd)

    def _make_root(self, entry: Entry) -> None:
        if entry.kind != DIRECTORY:
            raise bad_archive(f"the name {shown(entry.name)} is the root, but the member is no directory")
        self._has_root = True
        self._finish_directory(entry, b"", fd=self.tree.root_fd)

    def _finish_directory(self, entry: Entry, path: bytes, *, fd: int) -> None:
        os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        if entry.xattrs:
            self._set_xattrs(fd, entry)
        self.tree.set_time(path, entry.mtime_ns)

    def _make_file(self, entry: Entry, name: bytes, *, parent_fd: int) -> None:
        self.size_bytes += entry.size
        self._reserve.spend(entry.size + 4096)
        mode = entry.mode & 0o777
        try:
            fd = os.open(name, _NEW_FILE, mode, dir_fd=parent_fd)
        except FileExistsError:
            self.tree.remove(name, parent_fd)
            fd = os.open(name, _NEW_FILE, mode, dir_fd=parent_fd)
        try:
            if entry.extents is not None:
                self._write_sparse(fd, entry.extents, real_size=entry.real_size)
            elif entry.size > _SMALL_BYTES:
                _write_all(fd, self._reader.pieces())
            elif entry.size:
                _write_all(fd, (self._reader.content(_SMALL_BYTES),))
            self._finish_file(fd, entry)
        finally:
            os.close(fd)

    def _finish_file(self, fd: int, entry: Entry) -> None:
        # each change is a transaction of the file system's journal, a look is not: most files are right from the start
        info = os.fstat(fd)
        moved = (info.st_uid, info.st_gid) != (entry.uid, entry.gid)
        if moved:
            os.fchown(fd, entry.uid, entry.gid)
        if moved or info.st_mode & 0o7777 != entry.mode:
            os.fchmod(fd, entry.mode)
        if entry.xattrs:
            self._set_xattrs(fd, entry)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def _write_sparse(self, fd: int, extents: list[tuple[int, int]], *, real_size: int) -> None:
        pieces = self._reader.pieces()
        rest = memoryview(b"")
        for offset, length in extents:
            os.lseek(fd, offset, os.SEEK_SET)
            while length:
                rest = rest or next(pieces)
                part, rest = rest[:length], rest[length:]
                length -= len(part)
                _write_all(fd, (part,))
        os.ftruncate(fd, real_size)

    def _set_xattrs(self, fd: int, entry: Entry) -> None:
        """``user.*`` and file capabilities; the rest is the host's business, overlay's own would steer the mount."""
        for name, value in entry.xattrs.items():
            if len(value) > _MAX_XATTR_BYTES or b"\0" in name:
                raise bad_archive(f"an extended attribute of {shown(entry.name)} is malformed")
            capability = name == b"security.capability"
            kept = capability or (name.startswith(b"user.") and not name.startswith(b"user.overlay."))
            try:
                if kept:
                    os.setxattr(fd, name, value)
            except OSError as err:
                if capability or err.errno not in (errno.ENOTSUP, errno.EPERM, errno.ENOSPC, errno.E2BIG):
                    raise
                kept = False  # not every file system has room for them, or knows them at all
            if not kept and len(self.dropped) < _MAX_DROPPED:
                self.dropped.add(name.decode(errors="backslashreplace")[:100])

    def _make_symlink(self, entry: Entry, name: bytes, *, parent_fd: int) -> None:
        if not entry.link:
            raise bad_archive(f"the symbolic link {shown(entry.name)} has no target")
        try:
            os.symlink(entry.link, name, dir_fd=parent_fd)
        except FileExistsError:
            self.tree.remove(name, parent_fd)
            os.symlink(entry.link, name, dir_fd=parent_fd)
        self._finish_node(entry, name, parent_fd=parent_fd)

    def _make_link(self, entry: Entry, name: bytes, *, parent: bytes, parent_fd: int) -> None:
        """A second name of a member that came before; the target is looked up in the root like any other name."""
        target_parent, target = split_member(entry.link, self._limits)
        if not target or (target_parent, target) == (parent, name):
            raise bad_archive(f"the hard link {shown(entry.name)} has a wrong target")
        if target.startswith(WHITEOUT_PREFIX):
            raise bad_archive(f"the hard link {shown(entry.name)} points to a whiteout")
        target_fd = self.tree.directory(target_parent)
        info = os.stat(target, dir_fd=target_fd, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode) or is_whiteout(info):
            raise bad_archive(f"the hard link {shown(entry.name)} points to {shown(entry.link)}, which is no file")
        try:
            os.link(target, name, src_dir_fd=target_fd, dst_dir_fd=parent_fd, follow_symlinks=False)
        except FileExistsError:
            if os.path.samestat(info, os.stat(name, dir_fd=parent_fd, follow_symlinks=False)):
                return
            self.tree.remove(name, parent_fd)
            target_fd = self.tree.directory(target_parent)
            os.link(target, name, src_dir_fd=target_fd, dst_dir_fd=parent_fd, follow_symlinks=False)

    def _make_node(self, entry: Entry, name: bytes, *, parent_fd: int) -> None:
        """Devices are data here: the container's mounts are nodev where that matters."""
        device = os.makedev(entry.major, entry.minor)
        if entry.kind == CHARACTER and device == 0:
            raise bad_archive(f"{shown(entry.name)} is a character device 0:0, which overlay takes for a whiteout")
        mode = _NODE_TYPES[entry.kind] | 0o600
        try:
            os.mknod(name, mode, device, dir_fd=parent_fd)
        except FileExistsError:
            self.tree.remove(name, parent_fd)
            os.mknod(name, mode, device, dir_fd=parent_fd)
        self._finish_node(entry, name, parent_fd=parent_fd)
        # not through a link: the node is ours, made exclusively a moment ago
        os.chmod(name, entry.mode, dir_fd=parent_fd)

    def _finish_node(self, entry: Entry, name: bytes, *, parent_fd: int) -> None:
        os.chown(name, entry.uid, entry.gid, dir_fd=parent_fd, follow_symlinks=False)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent_fd, follow_symlinks=False)

    def _make_whiteout(self, entry: Entry, name: bytes, *, parent_fd: int) -> None:
        hidden = name[len(WHITEOUT_PREFIX) :]
        if entry.kind not in (FILE, LINK) or entry.size:
            raise bad_archive(f"the whiteout {shown(entry.name)} is no empty file")
        if name == _OPAQUE_NAME:
            os.setxattr(parent_fd, OPAQUE_XATTR, b"y")
        elif hidden in (b"", b".", b"..") or hidden.startswith(WHITEOUT_PREFIX):
            raise bad_archive(f"the whiteout {shown(entry.name)} hides nothing that can exist")
        else:
            self.tree.whiteout(hidden, parent_fd)


def _write_all(fd: int, pieces: Iterable[bytes | memoryview]) -> None:
    for piece in pieces:
        while (count := os.write(fd, piece)) < len(piece):
            piece = piece[count:]


def _problem(entry: Entry, err: OSError) -> CloisonError:
    """The kernel's refusal of one member, as an error for people."""
    what = f"cannot unpack {shown(entry.name)}"
    reason = os.strerror(err.errno or 0).lower()
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace("cannot unpack the layer")
    if err.errno in (errno.EMFILE, errno.ENFILE, errno.EIO):
        return Unavailable("cannot unpack the layer", why=reason)
    if err.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
        return Denied(what, why=reason, hint="run as root")
    return bad_archive(f"{what}: {reason}")
