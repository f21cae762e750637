"""A mount namespace of our own for a moment: what is mounted there nobody else sees, and it goes with its processes."""

from __future__ import annotations

import os
import stat
import struct

from cloison.linux.fd import Fd
from cloison.linux.host_mounts import attach, restrict
from cloison.linux.libc import address_of, syscall
from cloison.linux.mounts import READ_ONLY, new_file_system, open_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

_UNSHARE, _SETNS = {"x86_64": 272, "aarch64": 97}, {"x86_64": 308, "aarch64": 268}
_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS
_MOUNT_SETATTR, _AT_FDCWD, _RECURSIVE = 442, -100, 0x8000
_SLAVE = 1 << 19  # MS_SLAVE
_EMPTY_PATH = 0x1000
_RESTRICTIONS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "nosymfollow": 0x200000}  # MOUNT_ATTR_…
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

    def make_mount_point(self, directory: str, *, read_only: bool) -> None:
        """Mount a directory, and what is below, on itself. Raises: OSError."""
        with Fd(open_tree(directory, recursive=True)) as tree:
            if read_only:
                restrict(tree.number, READ_ONLY)
            attach(tree.number, directory)

    def gather(self, sources: Mapping[str, tuple[str, str]], *, on: str) -> None:
        """Mount paths below a directory, by a name for each, with exactly these of the mount options that restrict it.

        ``on`` is covered. Raises: OSError.
        """
        with Fd(new_file_system("tmpfs", ("mode=711",))) as tree:
            attach(tree.number, on)
        for name, (path, options) in sources.items():
            _mount(path, options, place=f"{on}/{name}")

    def _close(self) -> None:
        os.close(self._host)
        os.close(self._cwd)


def _mount(path: str, options: str, *, place: str) -> None:
    with Fd(open_tree(path, recursive=False)) as tree:
        if stat.S_ISDIR(os.fstat(tree.number).st_mode):
            os.mkdir(place)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        wanted = sum(_RESTRICTIONS.get(word, 0) for word in set(options.split(",")))
        empty = bytearray(1)
        change = bytearray(_mount_attr.pack(wanted, sum(_RESTRICTIONS.values()) & ~wanted, 0, 0))
        syscall(_MOUNT_SETATTR, tree.number, address_of(empty), _EMPTY_PATH, address_of(change), len(change))
        attach(tree.number, place)
