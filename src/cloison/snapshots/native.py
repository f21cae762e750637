"""Whole trees, copied: works on every file system, and shares blocks where the file system can (xfs, btrfs, bcachefs).

snapshots/native/layers/<hex>/              a layer with everything below it
snapshots/native/containers/<id>/root/      a copy of the topmost, for one container to write in
"""

from __future__ import annotations

import os

from cloison.errors import NotFound
from cloison.model.mount import Mount
from cloison.snapshots.layers import Layers, measure, missing_layer
from cloison.store.atomic import disk_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.archive.decompress import Readable
    from cloison.snapshots.staging import Staged

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Native(Layers):
    """The driver that copies (see `Snapshotter`)."""

    name = "native"
    compare_by = "metadata"

    # -- layers

    def stage(self, stream: Readable) -> Staged:
        from cloison.snapshots.staged_tree import StagedTree
        from cloison.snapshots.staging import filled

        self._make_directories()
        return filled(StagedTree(self.incoming, self.layer_path, clone=self.clone), stream)

    def clone(self, source: str, target: str) -> None:
        """Make ``target`` a tree like ``source`` ("" is an empty one), of which nothing is shared that can change.

        Raises: OSError.
        """
        from cloison.snapshots.copy import copy_tree

        os.mkdir(target, 0o755)
        if not source:
            return
        source_fd, target_fd = os.open(source, _DIRECTORY), os.open(target, _DIRECTORY)
        try:
            copy_tree(source_fd, target_fd)
        finally:
            os.close(source_fd)
            os.close(target_fd)

    def layer_size(self, chain_id: str, *, below: Sequence[str] = ()) -> int:
        """What the layer has more than the tree below it; deletions can hide some of that."""
        size = super().layer_size(chain_id)
        return max(size - (super().layer_size(below[-1]) if below else 0), 0)

    # -- containers

    def prepare(self, container_id: str, layers: Sequence[str], *, volatile: bool) -> Mount:
        home = self.home(container_id)
        if not self.has(layers[-1]):
            raise missing_layer(layers[-1])
        try:
            self._make_home(home)
            self._make_mountpoints()
            self.clone(self.layer_path(layers[-1]), f"{home}/root")
            self._add_mountpoints(f"{home}/root")
        except OSError as err:
            self.remove(container_id)
            raise disk_error(home, err) from err
        return self.plan_mount(container_id, layers, volatile=volatile)

    def _add_mountpoints(self, root: str) -> None:
        """Where the image has no place for what we mount; they look as if they had always been there."""
        from cloison.snapshots.copy import underlay_tree

        tree_fd, below_fd = os.open(root, _DIRECTORY), os.open(self.mountpoints, _DIRECTORY)
        try:
            underlay_tree(below_fd, tree_fd)
        finally:
            os.close(tree_fd)
            os.close(below_fd)

    def mount_of(self, container_id: str, layers: Sequence[str], *, volatile: bool) -> Mount:
        if not os.path.isdir(f"{self.home(container_id)}/root"):
            raise NotFound(f"no such snapshot: {container_id}")
        return self.plan_mount(container_id, layers, volatile=volatile)

    def plan_mount(self, container_id: str, layers: Sequence[str], *, volatile: bool) -> Mount:
        """The mount that `prepare` would give; nothing is made."""
        return Mount(type="bind", source=f"{self.home(container_id)}/root", target="/", options=("rbind",))

    def directories_of(self, container_id: str, layers: Sequence[str]) -> tuple[str, ...]:
        return (f"{self.home(container_id)}/root",)

    def layer_directories(self, layers: Sequence[str]) -> Sequence[str]:
        return [self.layer_path(layers[-1])]

    def base_directories(self, layers: Sequence[str]) -> Sequence[str]:
        return [self.layer_path(layers[-1]), self.mountpoints]

    def remove(self, container_id: str) -> bool:
        return self.remove_directory(self.home(container_id))

    def usage(self, container_id: str) -> int:
        return measure(f"{self.home(container_id)}/root", of_disk=True)
