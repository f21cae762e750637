"""The directories of a layer while it is being filled: opened inside the root, made where missing.

Everything is done in a directory that nobody else knows yet, through descriptors that `open_in_root` gave: whatever
links an archive has made, nothing outside the root can be reached. Whiteouts are kept the way overlay reads them.
Sources: image-spec layer.md, "Whiteouts"; kernel overlayfs.rst, "whiteouts and opaque directories".
"""

from __future__ import annotations

import os
import stat
import struct

from cloison.archive.budget import Limits, bad_archive, shown
from cloison.archive.headers import NS
from cloison.linux.paths import open_in_root
from cloison.linux.trees import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

OPAQUE_XATTR = "trusted.overlay.opaque"
WHITEOUT_PREFIX = b".wh."
WHITEOUT_DEVICE = os.makedev(0, 0)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_KEPT_OPEN = 64
_MAX_HOPS = 40  # as the kernel's, for links that dangle
_IMPLIED_MODE = 0o755
# of directories that have been met; with the rest of us a layer takes less than 64 MiB
_MAX_REMEMBERED_BYTES = 40 << 20
_NAME_BYTES = 160  # that a name costs in a dictionary, beside itself
# seconds, nanoseconds, how many bytes of the path are those of the one before, and how many follow
_note = struct.Struct("=qIHH")


def split_member(name: bytes, limits: Limits) -> tuple[bytes, bytes]:
    """Parent and last component of a member's name, relative to the root; both empty for the root itself.

    Absolute names are taken as relative, as every tar does. Raises: InvalidArgument for ``..`` and for excess length.
    """
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if not parts:
        return b"", b""
    if b".." in parts:
        raise bad_archive(f"the name {shown(name)} contains '..'")
    if len(parts) > limits.depth or max(map(len, parts)) > limits.name_bytes:
        raise bad_archive(f"the name {shown(name)} is too long or too deep")
    base = parts.pop()
    parent = b"/".join(parts)
    if WHITEOUT_PREFIX in parent and any(part.startswith(WHITEOUT_PREFIX) for part in parts):
        raise bad_archive(f"the name {shown(name)} goes through a whiteout")
    return parent, base


class LayerTree:
    """The root that a layer is unpacked into. Descriptors that it gives are its own, good until ``trim``."""

    def __init__(self, root_fd: int) -> None:
        self.root_fd = root_fd
        self.implied: dict[bytes, None] = {}  # directories that were made because something is inside, in order
        self._remembered_bytes = 0
        self._times = bytearray()  # notes, each with the end of its path: dictionaries take ten times as much
        self._last_path = b""
        self._open: dict[bytes, int] = {}

    def directory(self, path: bytes, *, hops: int = 0) -> int:
        """The directory ``path`` ("" is the root), made with its parents where it is missing.

        Raises: InvalidArgument, OSError.
        """
        if not path:
            return self.root_fd
        fd = self._open.get(path)
        if fd is None:
            try:
                fd = open_in_root(self.root_fd, path, flags=_DIRECTORY, no_xdev=True)
            except (FileNotFoundError, NotADirectoryError):
                return self._make_implied(path, hops=hops)
            self._open[path] = fd
        return fd

    def _make_implied(self, path: bytes, *, hops: int) -> int:
        parent, _, name = path.rpartition(b"/")
        parent_fd = self.directory(parent, hops=hops)
        try:
            os.mkdir(name, _IMPLIED_MODE, dir_fd=parent_fd)
        except FileExistsError:
            info = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            if stat.S_ISLNK(info.st_mode) and hops < _MAX_HOPS:
                target = os.readlink(name, dir_fd=parent_fd)
                return self.directory(_follow(parent, target), hops=hops + 1)
            if not is_whiteout(info):
                raise bad_archive(f"{shown(path)} is not a directory, but members lie in it") from None
            self._replace_whiteout(name, parent_fd)
        fd = self.adopt_directory(path, name, parent_fd=parent_fd)
        os.fchmod(fd, _IMPLIED_MODE)  # whatever umask says
        self._remember(len(path) + _NAME_BYTES)
        self.implied[path] = None
        return fd

    def make_directory(self, path: bytes, name: bytes, *, parent_fd: int) -> int:
        """A directory that the archive names: a new one, or the one that is there."""
        try:
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        except FileExistsError:
            info = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            if is_whiteout(info):
                self._replace_whiteout(name, parent_fd)
            elif not stat.S_ISDIR(info.st_mode):
                self.remove(name, parent_fd)
                os.mkdir(name, 0o700, dir_fd=parent_fd)
        self.implied.pop(path, None)
        return self._open.get(path) or self.adopt_directory(path, name, parent_fd=parent_fd)

    def adopt_directory(self, path: bytes, name: bytes, *, parent_fd: int) -> int:
        fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
        self._open[path] = fd
        return fd

    def _replace_whiteout(self, name: bytes, parent_fd: int) -> None:
        """Deleted below and made anew here: the new directory must not show what was deleted."""
        os.unlink(name, dir_fd=parent_fd)
        os.mkdir(name, 0o700, dir_fd=parent_fd)
        _set_opaque(name, parent_fd)

    def whiteout(self, name: bytes, parent_fd: int) -> None:
        """Hide ``name`` of the layers below; what this layer itself has there stays, in whatever order they came."""
        try:
            os.mknod(name, stat.S_IFCHR, WHITEOUT_DEVICE, dir_fd=parent_fd)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
                _set_opaque(name, parent_fd)

    def remove(self, name: bytes, parent_fd: int) -> None:
        """Make room for a member of the same name."""
        info = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode) or stat.S_ISLNK(info.st_mode):
            # any path through it means something else from now on
            self._forget(parent_fd)
        remove_tree(parent_fd, name)

    def set_time(self, path: bytes, mtime_ns: int) -> None:
        """To be set at the end, since filling a directory changes it."""
        shared = len(os.path.commonprefix((self._last_path, path)))
        rest = path[shared:]
        self._remember(_note.size + len(rest))
        self._times += _note.pack(*divmod(mtime_ns, NS), shared, len(rest)) + rest
        self._last_path = path

    def _remember(self, count: int) -> None:
        self._remembered_bytes += count
        if self._remembered_bytes > _MAX_REMEMBERED_BYTES:
            raise bad_archive("the names of its directories are too long altogether")

    def _noted_times(self) -> Iterator[tuple[bytes, int]]:
        path, position = b"", 0
        while position < len(self._times):
            seconds, nanoseconds, shared, more = _note.unpack_from(self._times, position)
            position += _note.size + more
            path = path[:shared] + self._times[position - more : position]
            yield path, seconds * NS + nanoseconds

    def finish(self) -> None:
        """Set the directories' times, in the order in which they came: of one that came twice, the last."""
        for path, mtime_ns in self._noted_times():
            try:
                fd = open_in_root(self.root_fd, path, flags=_DIRECTORY | os.O_NOFOLLOW)
            except OSError:
                continue  # replaced by a later member
            os.utime(fd, ns=(mtime_ns, mtime_ns))
            os.close(fd)

    def trim(self) -> None:
        """Between two members: keep the number of open descriptors small."""
        if len(self._open) > _KEPT_OPEN:
            self.close()

    def close(self) -> None:
        self._forget(-1)

    def _forget(self, except_fd: int) -> None:
        kept = {path: fd for path, fd in self._open.items() if fd == except_fd}
        for fd in self._open.values():
            if fd != except_fd:
                os.close(fd)
        self._open = kept


def is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == WHITEOUT_DEVICE


def _set_opaque(name: bytes, parent_fd: int) -> None:
    fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
    try:
        os.setxattr(fd, OPAQUE_XATTR, b"y")
    finally:
        os.close(fd)


def _follow(parent: bytes, target: bytes) -> bytes:
    """Where a dangling link of ``parent`` points, without leaving the root (the opening itself is what guards it)."""
    parts = [] if target.startswith(b"/") else parent.split(b"/")
    for part in target.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part and part != b".":
            parts.append(part)
    return b"/".join(filter(None, parts))
