"""The two directories everything lives in, checked and made at the start of each command.

The run root is what a reboot kills. On most machines it is a tmpfs and is simply gone then; where it is not, a mark
with the kernel's boot id says that what lies there belongs to a life before this one.
"""

from __future__ import annotations

import os

from cloison.errors import Denied, InvalidArgument
from cloison.linux import proc
from cloison.store.atomic import make_private_directory, read_file, write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.model.settings import Settings


def open_roots(settings: Settings) -> bool:
    """Make both roots; returns whether this is the first command since the machine was booted.

    Raises: Denied without the rights; InvalidArgument for a relative root.
    """
    for root in (settings.data_root, settings.run_root):
        if not root.startswith("/") or os.path.normpath(root) != root:
            raise InvalidArgument(f"invalid root directory: {root!r}", why="it must be an absolute, normal path")
    if os.geteuid() != 0:
        raise Denied(
            "cloison needs root on this machine",
            why=f"uid {os.geteuid()} may not make mounts, cgroups and network links (rootless mode is not there yet)",
            hint="use sudo",
        )
    mark = f"{settings.run_root}/boot"
    current = proc.boot_id()
    try:
        known = read_file(mark).decode("ascii")
    except FileNotFoundError:
        known = ""
    if known == current:
        return False
    make_private_directory(settings.data_root)
    make_private_directory(settings.run_root)
    if known:
        _forget_last_life(settings.run_root)
    make_private_directory(f"{settings.run_root}/containers")
    write_file(mark, current, durable=False)
    return True


def _forget_last_life(run_root: str) -> None:
    """Remove what lay in the run root before the reboot: no process, link or cgroup of it exists any more."""
    for folder, directories, files in os.walk(run_root, topdown=False, followlinks=False):
        for name in files:
            os.unlink(os.path.join(folder, name))
        for name in directories:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                os.unlink(path)
            else:
                os.rmdir(path)
