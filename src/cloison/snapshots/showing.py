"""Layers mounted read-only on a directory of the host, for people to look into."""

from __future__ import annotations

import os

from cloison.linux.host_mounts import attach, restrict
from cloison.linux.mounts import NO_DEVICES, NO_SETUID, READ_ONLY, new_file_system, open_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_ATTRIBUTES = READ_ONLY | NO_SETUID | NO_DEVICES
_GUARDS = ("index=off", "metacopy=off", "redirect_dir=nofollow")


def show(directories: Sequence[str], target: str) -> None:
    """Directories in overlay's form, topmost first, as one tree at ``target``. Raises: OSError."""
    if len(directories) == 1:
        tree = open_tree(directories[0], recursive=False)
        restrict(tree, _ATTRIBUTES)
    else:
        layers = tuple(f"lowerdir+={path}" for path in directories)
        tree = new_file_system("overlay", (*layers, *_GUARDS), attributes=_ATTRIBUTES)
    try:
        attach(tree, target)
    finally:
        os.close(tree)
