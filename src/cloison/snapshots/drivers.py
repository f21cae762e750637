"""Which driver a data root has: the one it began with; else the one that was asked for; else the first that works.

A data root keeps its driver, since a driver's layers are of no use to another; the directory below ``snapshots/`` says
which it is. Looking is one stat(2) for the default, for every command does it.
"""

from __future__ import annotations

import os

from cloison.errors import Conflict, InvalidArgument, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloison.model.settings import Settings
    from cloison.snapshots.snapshotter import Snapshotter

# in the order in which they are tried
NAMES = ("overlay", "btrfs", "fuse-overlayfs", "native")


def open_snapshots(settings: Settings) -> Snapshotter:
    """The driver of this data root. Raises: Conflict when another was asked for, InvalidArgument, Unsupported."""
    asked = settings.storage_driver
    if asked in ("", "overlay") and os.path.isdir(f"{settings.data_root}/snapshots/overlay"):
        from cloison.snapshots.overlay import Overlay

        return Overlay(settings.data_root)
    if asked not in ("", *NAMES):
        raise InvalidArgument(f"unknown storage driver {asked!r}", hint=f"there are {', '.join(NAMES)}")
    kept = _kept(settings.data_root)
    if kept and asked not in ("", kept):
        raise Conflict(
            f"cannot use the storage driver {asked}", why=f"{settings.data_root} is of the driver {kept}",
            hint="take another --data-root for it",
        )  # fmt: skip
    return _make(kept or asked or _first_that_works(settings.data_root), settings.data_root)


def _kept(data_root: str) -> str:
    return next((name for name in NAMES if os.path.isdir(f"{data_root}/snapshots/{name}")), "")


def is_kept(data_root: str) -> bool:
    """Whether the data root has begun with a driver, and cannot change it."""
    return bool(_kept(data_root))


def _make(name: str, data_root: str) -> Snapshotter:
    if name == "overlay":
        from cloison.snapshots.overlay import Overlay

        return Overlay(data_root)
    if name == "btrfs":
        from cloison.snapshots.btrfs import Btrfs

        return Btrfs(data_root)
    if name == "fuse-overlayfs":
        from cloison.snapshots.fuse_overlay import FuseOverlay

        return FuseOverlay(data_root)
    from cloison.snapshots.native import Native

    return Native(data_root)


def _first_that_works(data_root: str) -> str:
    return next(name for name in NAMES if not why_not(name, data_root))


def why_not(name: str, data_root: str) -> str:
    """Tried out in the data root, and undone: "" when the driver works there, else the reason in words."""
    from cloison.snapshots import probing

    probes: dict[str, Callable[[str], None]] = {
        "overlay": probing.try_overlay, "btrfs": probing.try_btrfs, "fuse-overlayfs": probing.try_fuse_overlay,
    }  # fmt: skip
    if name not in probes:
        return ""
    try:
        probing.in_a_corner_of(data_root, probes[name])
    except OSError as err:
        return os.strerror(err.errno or 0).lower()
    except Unsupported as err:
        return str(err)
    return ""
