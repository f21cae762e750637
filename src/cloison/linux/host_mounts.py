"""Mounts on the host itself: few things need one (images that people look into, overlay in user space)."""

from __future__ import annotations

import os
import struct

from cloison.linux.libc import address_of, syscall

_MOVE_MOUNT, _MOUNT_SETATTR = 429, 442  # the same everywhere, as all calls since Linux 5.1
_UMOUNT2 = {"x86_64": 166, "aarch64": 39}
_EMPTY_PATH = 4  # MOVE_MOUNT_F_EMPTY_PATH
_DETACH, _NO_FOLLOW = 2, 8  # umount2(2)
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_mount_attr = struct.Struct("=QQQQ")  # set, clear, propagation, user namespace


def restrict(tree: int, attributes: int) -> None:
    """Set attributes (`cloison.linux.mounts.READ_ONLY` …) of a mount that is nowhere yet. Raises: OSError."""
    empty, wanted = _text(""), bytearray(_mount_attr.pack(attributes, 0, 0, 0))
    syscall(_MOUNT_SETATTR, tree, address_of(empty), _AT_EMPTY_PATH, address_of(wanted), len(wanted))


def attach(mount_fd: int, target: str) -> None:
    """Put a new mount on a directory. Raises: OSError."""
    empty, path = _text(""), _text(target)
    syscall(_MOVE_MOUNT, mount_fd, address_of(empty), _AT_FDCWD, address_of(path), _EMPTY_PATH)


def unmount(path: str) -> None:
    """Take the topmost mount off a directory, at once, even when somebody uses it. Raises: OSError."""
    target = _text(path)
    syscall(_UMOUNT2[os.uname().machine], address_of(target), _DETACH | _NO_FOLLOW)


def mountpoints(below: str) -> list[str]:
    """What is mounted below a directory, deepest last."""
    from cloison.linux.mount_table import read_mounts

    return [row.target for row in read_mounts("/proc/self/mountinfo") if row.target.startswith(f"{below}/")]


def is_mountpoint(path: str) -> bool:
    """Whether something is mounted on this very directory, a file system whose process has died included."""
    return path in mountpoints(os.path.dirname(path))


def _text(text: str) -> bytearray:
    return bytearray(os.fsencode(text) + b"\0")
