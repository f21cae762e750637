"""Overlay in user space, for kernels that cannot mount one here: the program fuse-overlayfs, one process a container.

    snapshots/fuse-overlayfs/containers/<id>/{upper,work,merged}

Unlike every other driver it needs a process and a mount on the host while a container runs; `release` ends both.
"""

from __future__ import annotations

import os

from cloison.errors import Unsupported
from cloison.linux.command import run
from cloison.linux.host_mounts import is_mountpoint, unmount
from cloison.model.mount import Mount
from cloison.snapshots.overlay import Overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "fuse-overlayfs"


class FuseOverlay(Overlay):
    """The driver in user space (see `Snapshotter`)."""

    name = "fuse-overlayfs"
    # beside the attribute that says the same, as containers/storage does
    hidden = frozenset((".wh..wh..opq",))

    def mount_of(self, container_id: str, layers: Sequence[str], *, volatile: bool) -> Mount:
        super().mount_of(container_id, layers, volatile=False)  # looks whether all is there
        home = self.home(container_id)
        self.release(container_id)
        try:
            os.mkdir(f"{home}/merged", 0o700)
        except FileExistsError:
            pass
        lower = ":".join(map(_escaped, (*self.layer_directories(layers), self.mountpoints)))
        places = f"lowerdir={lower},upperdir={_escaped(f'{home}/upper')},workdir={_escaped(f'{home}/work')}"
        run([PROGRAM, "-o", f"{places},allow_other", f"{home}/merged"])
        return self.plan_mount(container_id, layers, volatile=volatile)

    def plan_mount(self, container_id: str, layers: Sequence[str], *, volatile: bool) -> Mount:
        return Mount(type="bind", source=f"{self.home(container_id)}/merged", target="/", options=("rbind",))

    def show(self, layers: Sequence[str], target: str) -> None:
        lower = ":".join(map(_escaped, self.layer_directories(layers)))
        run([PROGRAM, "-o", f"lowerdir={lower},ro,nosuid,nodev,allow_other", target])

    def release(self, container_id: str) -> None:
        merged = f"{self.home(container_id)}/merged"
        if is_mountpoint(merged):
            unmount(merged)

    def remove(self, container_id: str) -> bool:
        self.release(container_id)
        return super().remove(container_id)


def _escaped(path: str) -> str:
    if "," in path:
        raise Unsupported(f"cannot use {path} with {PROGRAM}", why="its options are separated by commas")
    return path.replace("\\", "\\\\").replace(":", "\\:")
