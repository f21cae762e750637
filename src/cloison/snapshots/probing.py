"""Does a driver work here? Each is tried out for a moment, in a directory of its own below the data root."""

from __future__ import annotations

import fcntl
import os
import stat

from cloison.errors import Unsupported
from cloison.linux.btrfs import create_subvolume, destroy_subvolume
from cloison.linux.mounts import new_file_system
from cloison.linux.trees import remove_tree
from cloison.store.atomic import make_private_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CORNER = ".probe"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def in_a_corner_of(data_root: str, probe: Callable[[str], None]) -> None:
    """Raises: OSError, Unsupported: what the probe raises."""
    make_private_directory(data_root)
    root_fd = os.open(data_root, _DIRECTORY)
    try:
        fcntl.flock(root_fd, fcntl.LOCK_EX)  # one at a time: what lies there is the rest of a crash
        remove_tree(root_fd, _CORNER)
        os.mkdir(_CORNER, 0o700, dir_fd=root_fd)
        try:
            probe(f"{data_root}/{_CORNER}")
        finally:
            remove_tree(root_fd, _CORNER)
    finally:
        os.close(root_fd)


def sweep(data_root: str) -> None:
    """Remove what a probe left that was killed."""
    if not os.path.exists(f"{data_root}/{_CORNER}"):
        return
    root_fd = os.open(data_root, _DIRECTORY)
    try:
        fcntl.flock(root_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_tree(root_fd, _CORNER)
    except BlockingIOError:
        return  # one is at work
    finally:
        os.close(root_fd)


def try_overlay(corner: str) -> None:
    """Mounted nowhere, with a writable layer, and whiteouts that the file system must be able to keep."""
    _try_whiteouts(corner)
    for name in ("lower", "upper", "work"):
        os.mkdir(f"{corner}/{name}")
    options = tuple(f"{name}dir={corner}/{name}" for name in ("lower", "upper", "work"))
    os.close(new_file_system("overlay", options))


def try_btrfs(corner: str) -> None:
    fd = os.open(corner, _DIRECTORY)
    try:
        create_subvolume(fd, "x")
        destroy_subvolume(fd, "x")
    finally:
        os.close(fd)


def try_fuse_overlay(corner: str) -> None:
    from cloison.snapshots.fuse_overlay import PROGRAM

    _try_whiteouts(corner)
    if not any(os.access(f"{folder}/{PROGRAM}", os.X_OK) for folder in ("/usr/bin", "/usr/local/bin", "/bin")):
        raise Unsupported(f"{PROGRAM} is not installed")
    os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))


def _try_whiteouts(corner: str) -> None:
    os.mknod(f"{corner}/whiteout", stat.S_IFCHR, os.makedev(0, 0))
    os.setxattr(corner, "trusted.overlay.opaque", b"y")
    os.removexattr(corner, "trusted.overlay.opaque")
