"""What one tree has and another has not: of a container against its image, of one image against another."""

from __future__ import annotations

import os
import stat

from cloison.archive.union import read_xattrs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloison.archive.union import Item, Union

    # one change: (before, after); None on the one side is an addition, on the other a deletion
    Change = tuple[Item | None, Item | None]

_CHUNK = 1 << 20

TOUCHED = "touched"  # another inode is another file: what a writable layer holds was written
METADATA = "metadata"  # owner, mode, size, times and links are compared: for a copy of the tree
CONTENT = "content"  # the same without times, and the bytes: for trees that were made apart from each other


def compare(old: Union, new: Union, *, by: str) -> Iterator[Change]:
    """Every change in the order of paths, a directory before what is in it, the root without name first.

    A directory in which anything changed is a change itself. Of a deleted one only the top is told, of a new one
    everything. Raises: InvalidArgument for a tree that is too deep; OSError.
    """
    walk = _Walk(old, new, by=by)
    return iter(walk.pair(old.root(), new.root()))


class _Walk:
    def __init__(self, old: Union, new: Union, *, by: str) -> None:
        self._old = old
        self._new = new
        tests: dict[str, Callable[[Item, Item], bool]] = {
            TOUCHED: self._is_untouched, METADATA: self._has_same_metadata, CONTENT: self._has_same_content,
        }  # fmt: skip
        self._is_same = tests[by]

    def pair(self, old: Item, new: Item) -> list[Change]:
        """Changes of one name that both have."""
        if old.places == new.places:
            return []
        if not (old.is_directory and new.is_directory):
            if self._is_same(old, new):
                return []
            return [(old, new), *(self._all_below(new) if new.is_directory else ())]
        below = self._directories(old, new)
        return [(old, new), *below] if below or not self._is_same(old, new) else []

    def _directories(self, old: Item, new: Item) -> list[Change]:
        before = {item.path: item for item in self._old.children(old)}
        after = {item.path: item for item in self._new.children(new)}
        changes: list[Change] = []
        for path in sorted({*before, *after}):
            one, other = before.get(path), after.get(path)
            if one is not None and other is not None:
                changes += self.pair(one, other)
            elif other is not None:
                changes += [(None, other), *(self._all_below(other) if other.is_directory else ())]
            else:
                changes.append((one, None))
        return changes

    def _all_below(self, directory: Item) -> Iterator[Change]:
        for item in self._new.children(directory):
            yield None, item
            if item.is_directory:
                yield from self._all_below(item)

    # -- when two are the same

    def _is_untouched(self, old: Item, new: Item) -> bool:
        # a directory is copied up with the first change below it, which says nothing about itself
        return old.is_directory and new.is_directory and self._has_same_metadata(old, new)

    def _has_same_metadata(self, old: Item, new: Item) -> bool:
        return old.info.st_mtime_ns == new.info.st_mtime_ns and self._looks_same(old, new)

    def _has_same_content(self, old: Item, new: Item) -> bool:
        if not self._looks_same(old, new):
            return False
        return not stat.S_ISREG(new.info.st_mode) or self._read_same(old, new)

    def _looks_same(self, old: Item, new: Item) -> bool:
        if _attributes(old) != _attributes(new):
            return False
        if stat.S_ISLNK(new.info.st_mode):
            return self._old.link_target(old) == self._new.link_target(new)
        if not (stat.S_ISREG(new.info.st_mode) or new.is_directory):
            return True
        one, other = self._old.open(old), self._new.open(new)
        try:
            return read_xattrs(one) == read_xattrs(other)
        finally:
            os.close(one)
            os.close(other)

    def _read_same(self, old: Item, new: Item) -> bool:
        one, other = self._old.open(old), self._new.open(new)
        try:
            while True:
                piece = os.read(one, _CHUNK)
                if piece != os.read(other, _CHUNK):
                    return False
                if not piece:
                    return True
        finally:
            os.close(one)
            os.close(other)


def _attributes(item: Item) -> tuple[int, ...]:
    info = item.info
    size = info.st_size if stat.S_ISREG(info.st_mode) else 0
    return (info.st_mode, info.st_uid, info.st_gid, info.st_rdev, size)
