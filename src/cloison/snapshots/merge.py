"""A layer in overlay's form put onto the whole tree of the layers below it, for drivers that keep whole trees.

Both are directories of ours that nobody else knows yet. Files are moved where that is possible, and copied otherwise.
Source: image-spec layer.md, "Applying Changesets".
"""

from __future__ import annotations

import errno
import os
import stat

from cloison.archive.tree import OPAQUE_XATTR, is_whiteout
from cloison.linux.paths import open_in_root
from cloison.linux.trees import list_names, remove_tree
from cloison.snapshots.copy import copy_attributes, copy_entry

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def merge_layer(layer_fd: int, tree_fd: int) -> None:
    """Apply what the layer adds, changes and deletes; it is empty of files afterwards. Raises: OSError."""
    if _is_opaque(layer_fd):
        _remove_all(tree_fd)
    moved: dict[tuple[int, int], tuple[int, str]] = {}
    held: list[int] = []
    try:
        _merge(layer_fd, tree_fd, moved=moved, held=held)
    finally:
        for fd in held:
            os.close(fd)


def _merge(
    layer_fd: int, tree_fd: int, *, moved: dict[tuple[int, int], tuple[int, str]], held: list[int]
) -> None:  # fmt: skip
    before = os.fstat(layer_fd)  # moving files out of it changes its time
    for name in list_names(layer_fd):
        info = os.stat(name, dir_fd=layer_fd, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            _merge_directory(layer_fd, tree_fd, name=name, moved=moved, held=held)
            continue
        remove_tree(tree_fd, name)
        if not is_whiteout(info):
            _move(layer_fd, tree_fd, name=name, info=info, moved=moved, held=held)
    copy_attributes(layer_fd, tree_fd, info=before)


def _merge_directory(
    layer_fd: int, tree_fd: int, *, name: str, moved: dict[tuple[int, int], tuple[int, str]], held: list[int]
) -> None:
    layer = open_in_root(layer_fd, os.fsencode(name), flags=_DIRECTORY, no_symlinks=True)
    try:
        tree = _make_directory(tree_fd, name, is_new=_is_opaque(layer))
        try:
            _merge(layer, tree, moved=moved, held=held)
        finally:
            os.close(tree)
    finally:
        os.close(layer)


def _make_directory(parent_fd: int, name: str, *, is_new: bool) -> int:
    try:
        there = stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        there = False
    if is_new or not there:
        remove_tree(parent_fd, name)
        os.mkdir(name, 0o700, dir_fd=parent_fd)
    return os.open(name, _DIRECTORY, dir_fd=parent_fd)


def _move(
    layer_fd: int, tree_fd: int, *, name: str, info: os.stat_result,
    moved: dict[tuple[int, int], tuple[int, str]], held: list[int],
) -> None:  # fmt: skip
    try:
        os.rename(name, name, src_dir_fd=layer_fd, dst_dir_fd=tree_fd)
        return
    except OSError as err:
        if err.errno != errno.EXDEV:  # another subvolume of the same btrfs
            raise
    first = moved.get((info.st_dev, info.st_ino))
    if first is not None:
        os.link(first[1], name, src_dir_fd=first[0], dst_dir_fd=tree_fd, follow_symlinks=False)
        return
    copy_entry(layer_fd, tree_fd, name=name, info=info)
    if info.st_nlink > 1:
        held.append(os.dup(tree_fd))
        moved[info.st_dev, info.st_ino] = held[-1], name


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, OPAQUE_XATTR) == b"y"
    except OSError:
        return False


def _remove_all(fd: int) -> None:
    for name in list_names(fd):
        remove_tree(fd, name)
