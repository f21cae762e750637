"""Mounts that are attached nowhere yet: opened here, put into place by the launcher, or `linux/host_mounts.py`."""

from __future__ import annotations

import os
import struct

from cloison.linux.libc import address_of, syscall

# One number on every architecture, as all calls since Linux 5.1
_OPEN_TREE, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 430, 431, 432, 442
_AT_FDCWD = -100
_CLONE, _CLOEXEC, _RECURSIVE, _NO_FOLLOW, _EMPTY_PATH = 1, os.O_CLOEXEC, 0x8000, 0x100, 0x1000
_FLAG, _STRING, _CREATE = 0, 1, 6  # fsconfig(2), FSCONFIG_…
_ATTR_IDMAP = 0x00100000
_mount_attr = struct.Struct("=QQQQ")  # set, clear, propagation, user namespace


def open_tree(path: str, *, recursive: bool, follow: bool = True, directory_fd: int = _AT_FDCWD) -> int:
    """A copy of what is mounted at this path, with the peers of the original; close-on-exec, the caller's to close.

    ``follow``: whether the last component may be a link. Raises: OSError (EPERM without CAP_SYS_ADMIN).
    """
    flags = _CLONE | _CLOEXEC | (_RECURSIVE if recursive else 0) | (0 if follow else _NO_FOLLOW)
    name = _text(path)
    return syscall(_OPEN_TREE, directory_fd, address_of(name), flags)


def map_ids(tree: int, *, user_namespace: int, recursive: bool) -> None:
    """Show the files' owners as this user namespace maps them: on disk is the id inside of it, shown the one outside.

    Raises: OSError (EINVAL where the file system cannot, ENOSYS before Linux 5.12).
    """
    attributes = bytearray(_mount_attr.pack(_ATTR_IDMAP, 0, 0, user_namespace))
    flags = _EMPTY_PATH | (_RECURSIVE if recursive else 0)
    empty = _text("")
    syscall(_MOUNT_SETATTR, tree, address_of(empty), flags, address_of(attributes), len(attributes))


# linux/mount.h, MOUNT_ATTR_…
READ_ONLY, NO_SETUID, NO_DEVICES = 1, 2, 4


def new_file_system(kind: str, options: tuple[str, ...], *, attributes: int = 0) -> int:
    """A new file system of this type, mounted nowhere; options are ``key=value`` or ``flag``. Raises: OSError."""
    fs = syscall(_FSOPEN, address_of(name := _text(kind)), 1)
    try:
        for option in ("source=" + kind, *options):
            key, equals, value = option.partition("=")
            key_text, value_text = _text(key), _text(value)
            command = _STRING if equals else _FLAG
            syscall(_FSCONFIG, fs, command, address_of(key_text), address_of(value_text) if equals else 0, 0)
        syscall(_FSCONFIG, fs, _CREATE, 0, 0, 0)
        return syscall(_FSMOUNT, fs, 1, attributes)
    finally:
        os.close(fs)
        del name


def _text(value: str) -> bytearray:
    return bytearray(os.fsencode(value) + b"\0")
