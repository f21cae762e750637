"""A mount namespace of our own for a moment: what is mounted there nobody else sees, and it goes with its processes."""

from __future__ import annotations

import os
import struct

from cloison.linux.host_mounts import attach
from cloison.linux.libc import address_of, syscall
from cloison.linux.mounts import open_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_UNSHARE, _SETNS = {"x86_64": 272, "aarch64": 97}, {"x86_64": 308, "aarch64": 268}
_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS
_MOUNT_SETATTR, _AT_FDCWD, _RECURSIVE = 442, -100, 0x8000
_SLAVE = 1 << 19  # MS_SLAVE
_mount_attr = struct.Struct("=QQQQ")  # set, clear, propagation, user namespace


class PrivateMounts:
    """A context manager: within, this thread and what it starts see the host's mounts, and their own stay among them.

    A program with threads must not use it (unshare(2) tells the threads apart). Raises: OSError.
    """

    def __enter__(self) -> Self:
        machine = os.uname().machine
        self._host = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._cwd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscall(_UNSHARE[machine], _NEW_MOUNTS)
        except OSError:
            self._close()
            raise
        try:
            # What the host mounts still arrives; nothing of ours goes there
            root, slave = bytearray(b"/\0"), bytearray(_mount_attr.pack(0, 0, _SLAVE, 0))
            syscall(_MOUNT_SETATTR, _AT_FDCWD, address_of(root), _RECURSIVE, address_of(slave), len(slave))
        except OSError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_failure: object) -> None:
        try:
            syscall(_SETNS[os.uname().machine], self._host, _NEW_MOUNTS)
            os.chdir(self._cwd)  # setns(2) has gone to the root
        finally:
            self._close()

    def make_mount_point(self, directory: str) -> None:
        """Mount a directory, and what is below, on itself. Raises: OSError."""
        tree = open_tree(directory, recursive=True)
        try:
            attach(tree, directory)
        finally:
            os.close(tree)

    def _close(self) -> None:
        os.close(self._host)
        os.close(self._cwd)
