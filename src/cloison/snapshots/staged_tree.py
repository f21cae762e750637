"""Layers on their way in, for drivers that keep whole trees: what was unpacked is put onto a copy of what is below."""

from __future__ import annotations

import os

from cloison.linux.disk import sync_filesystem
from cloison.snapshots.merge import merge_layer
from cloison.snapshots.staging import TREE_SUFFIX, Staged
from cloison.store.atomic import disk_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class StagedTree(Staged):
    """See `StagedLayer`."""

    def __init__(self, incoming: str, layer_path: Callable[[str], str], *, clone: Callable[[str, str], None]) -> None:
        super().__init__(incoming, layer_path)
        self._clone = clone
        self._is_tree = False

    def adopt(self, below: Sequence[str]) -> None:
        """Become the whole tree; afterwards ``fd`` is that."""
        if self._is_tree:
            return
        super().adopt(below[-1:])
        tree = self._path + TREE_SUFFIX
        try:
            self._clone(self._layer_path(below[-1]) if below else "", tree)
            tree_fd = os.open(tree, _DIRECTORY)
            try:
                merge_layer(self.fd, tree_fd)
                # what was synced before is not what gets the name
                sync_filesystem(tree_fd)
            except BaseException:
                os.close(tree_fd)
                raise
        except OSError as err:
            raise disk_error(tree, err) from err
        os.close(self.fd)
        self.fd = tree_fd
        self._is_tree = True

    def _finished(self) -> str:
        return self._path + TREE_SUFFIX

    def discard(self) -> None:
        if self.fd >= 0:
            self._remove(self._path + TREE_SUFFIX)
        super().discard()
