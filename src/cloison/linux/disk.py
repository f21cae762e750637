"""What file systems are asked as a whole: to be on disk now."""

from __future__ import annotations

import os

from cloison.linux.libc import syscall

# 267 in the table that all newer architectures share (include/uapi/asm-generic/unistd.h)
_SYNCFS = {"x86_64": 306}
_SYNCFS_GENERIC = 267


def sync_filesystem(fd: int) -> None:
    """Everything written so far to the file system of ``fd`` survives a power cut (syncfs(2)). Raises: OSError."""
    syscall(_SYNCFS.get(os.uname().machine, _SYNCFS_GENERIC), fd)
