"""A tree, or the difference of two, as a tar stream: what `commit`, `export` and `import` of a directory write.

The same files always give the same bytes: names are sorted, hard links point to the first name that was written, and
there is no clock. A deletion is an explicit whiteout ("Implementations SHOULD generate layers using explicit whiteout
files", image-spec layer.md, "Opaque Whiteout").
"""

from __future__ import annotations

import os
import stat

from cloison.archive.headers import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, FILE, LINK, SYMLINK
from cloison.archive.tree import WHITEOUT_PREFIX
from cloison.archive.union import read_xattrs
from cloison.archive.writer import TarWriter, new_entry
from cloison.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloison.archive.changes import Change
    from cloison.archive.headers import Entry
    from cloison.archive.union import Item, Union
    from cloison.archive.writer import Writable

_KINDS = {
    stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: SYMLINK, stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE, stat.S_IFIFO: FIFO,
}  # fmt: skip


def write_tree(union: Union, out: Writable, *, pad: bool = False) -> None:
    """All of a tree; what is mounted in it is left out.

    ``pad``: a file that becomes shorter while it is read is filled up with zeros, as by GNU tar; else it is an
    EOFError. Raises: OSError, InvalidArgument.
    """
    writer = _LayerWriter(union, out, pad=pad)
    root = union.root()
    writer.add(root)
    _add_below(root, union, writer)
    writer.finish()


def _add_below(directory: Item, union: Union, writer: _LayerWriter) -> None:
    for item in union.children(directory):
        writer.add(item)
        if item.is_directory and item.info.st_dev == directory.info.st_dev:
            _add_below(item, union, writer)


def write_changes(changes: Iterable[Change], out: Writable, *, tree: Union, pad: bool = False) -> None:
    """The layer that makes the old tree the new one, which is ``tree``. Raises: as `write_tree`."""
    writer = _LayerWriter(tree, out, pad=pad)
    for old, new in changes:
        if new is not None:
            if new.path.rpartition(b"/")[2].startswith(WHITEOUT_PREFIX):
                raise InvalidArgument(
                    f"cannot put /{os.fsdecode(new.path)} in a layer", why="names that begin with .wh. delete files"
                )
            if new.path or old is None or _owner_and_mode(old) != _owner_and_mode(new):
                writer.add(new)  # the root's time says nothing, and would make each layer another
        elif old is not None:
            writer.add_whiteout(old.path)
    writer.finish()


class _LayerWriter:
    def __init__(self, union: Union, out: Writable, *, pad: bool) -> None:
        self._union = union
        self._tar = TarWriter(out, pad=pad)
        self._linked: dict[tuple[int, int], bytes] = {}
        self._device = union.root().info.st_dev

    def finish(self) -> None:
        self._tar.finish()

    def add(self, item: Item) -> None:
        """One member; what has vanished by now, sockets and mounts are passed over."""
        kind = _KINDS.get(stat.S_IFMT(item.info.st_mode))
        # a socket without its process is nothing; a mount belongs to the machine
        if kind is None or item.info.st_dev != self._device:
            return
        try:
            self._add(item, kind)
        except FileNotFoundError:
            return

    def add_whiteout(self, path: bytes) -> None:
        parent, slash, name = path.rpartition(b"/")
        self._tar.add(new_entry(parent + slash + WHITEOUT_PREFIX + name, FILE, mode=0o644))

    def _add(self, item: Item, kind: bytes) -> None:
        first = self._linked.get(item.places[0])
        if first is not None and kind != DIRECTORY:
            self._tar.add(new_entry(item.path, LINK, mode=0o644, link=first))
        elif kind in (FILE, DIRECTORY):
            fd = self._union.open(item)
            try:
                entry = _entry(item.path, kind, info=os.fstat(fd))
                entry.xattrs = read_xattrs(fd)
                self._tar.add(entry, fd=fd if kind == FILE else -1)
            finally:
                os.close(fd)
        else:
            entry = _entry(item.path, kind, info=item.info)
            if kind == SYMLINK:
                entry.link = self._union.link_target(item)
            self._tar.add(entry)
        if first is None and kind != DIRECTORY and item.info.st_nlink > 1:
            self._linked[item.places[0]] = item.path


def _owner_and_mode(item: Item) -> tuple[int, int, int]:
    return (item.info.st_mode, item.info.st_uid, item.info.st_gid)


def _entry(path: bytes, kind: bytes, *, info: os.stat_result) -> Entry:
    name = (path or b".") + b"/" if kind == DIRECTORY else path
    entry = new_entry(
        name, kind, mode=stat.S_IMODE(info.st_mode), uid=info.st_uid, gid=info.st_gid, mtime_ns=info.st_mtime_ns,
        size=info.st_size if kind == FILE else 0,
    )  # fmt: skip
    if kind in (CHARACTER, BLOCK_DEVICE):
        entry.major, entry.minor = os.major(info.st_rdev), os.minor(info.st_rdev)
    return entry
