"""Whole trees as subvolumes of btrfs: a container's is a snapshot, made and removed in no time whatever its size.

snapshots/btrfs/layers/<hex>/              a subvolume: a layer with everything below it
snapshots/btrfs/containers/<id>/root/      a snapshot of the topmost
"""

from __future__ import annotations

import os

from cloison.linux.btrfs import create_subvolume, destroy_subvolume, snapshot_subvolume
from cloison.snapshots.native import Native

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Btrfs(Native):
    """The driver of subvolumes (see `Snapshotter`)."""

    name = "btrfs"

    def clone(self, source: str, target: str) -> None:
        parent, name = os.path.split(target)
        parent_fd = os.open(parent, _DIRECTORY)
        try:
            if not source:
                create_subvolume(parent_fd, name)
                return
            source_fd = os.open(source, _DIRECTORY)
            try:
                snapshot_subvolume(parent_fd, name, source_fd=source_fd)
            finally:
                os.close(source_fd)
        finally:
            os.close(parent_fd)

    def remove(self, container_id: str) -> bool:
        self._destroy(f"{self.home(container_id)}/root")
        return super().remove(container_id)

    def remove_layer(self, chain_id: str) -> bool:
        path = self.layer_path(chain_id)
        return self._destroy(path) or super().remove_layer(chain_id)

    def _destroy(self, path: str) -> bool:
        """In one step; whether that was possible. What contains subvolumes of its own is removed file by file."""
        try:
            parent_fd = os.open(os.path.dirname(path), _DIRECTORY)
        except OSError:
            return False
        try:
            destroy_subvolume(parent_fd, os.path.basename(path))
        except OSError:
            return False
        finally:
            os.close(parent_fd)
        return True
