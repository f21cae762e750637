"""Subvolumes of btrfs: made, snapshotted and removed in one step each (include/uapi/linux/btrfs.h)."""

from __future__ import annotations

import fcntl
import os
import struct

_ARGUMENTS = struct.Struct("=q4088s")  # struct btrfs_ioctl_vol_args
_SNAPSHOT, _CREATE, _DESTROY = 0x50009401, 0x5000940E, 0x5000940F


def create_subvolume(parent_fd: int, name: str) -> None:
    """An empty one. Raises: OSError (ENOTTY: this is no btrfs)."""
    fcntl.ioctl(parent_fd, _CREATE, bytearray(_ARGUMENTS.pack(0, os.fsencode(name))))


def snapshot_subvolume(parent_fd: int, name: str, *, source_fd: int) -> None:
    """A writable copy of a whole subvolume, whatever its size. Raises: OSError."""
    fcntl.ioctl(parent_fd, _SNAPSHOT, bytearray(_ARGUMENTS.pack(source_fd, os.fsencode(name))))


def destroy_subvolume(parent_fd: int, name: str) -> None:
    """A subvolume with all that is in it; one with another in it is refused. Raises: OSError."""
    fcntl.ioctl(parent_fd, _DESTROY, bytearray(_ARGUMENTS.pack(0, os.fsencode(name))))
