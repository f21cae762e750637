"""The default driver: the kernel's overlayfs. A layer holds its own files and whiteouts alone.

snapshots/overlay/containers/<id>/{upper,work}     what one container writes
"""

from __future__ import annotations

import os
import time

from cloison.errors import NotFound, Unavailable
from cloison.model.mount import Mount
from cloison.snapshots.layers import Layers, measure, missing_layer
from cloison.snapshots.lookup import is_opaque
from cloison.store.atomic import disk_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# This kernel may be configured to follow redirects and metadata-only copies by default; a layer from a stranger could
# then show another layer's files under any name (overlayfs.rst, "redirect_dir", "Metadata only copy up").
_GUARDS = ("index=off", "metacopy=off", "redirect_dir=nofollow")
# where the kernel notes that an overlay was mounted volatile (overlayfs.rst, "Volatile mount")
_VOLATILE_MARK = "work/work/incompat"
# What the kernel leaves in a working directory, in the order in which it can be removed.
_LEFT_BY_KERNEL = ("work/work/incompat/volatile", "work/work/incompat", "work/work", "work")


class Overlay(Layers):
    """The overlay driver of one data root (see `Snapshotter`)."""

    name = "overlay"

    # -- containers

    def prepare(self, container_id: str, layers: Sequence[str], *, volatile: bool) -> Mount:
        home = self.home(container_id)
        top = self.layer_path(layers[-1])
        try:
            info = os.stat(top)
        except FileNotFoundError:
            raise missing_layer(layers[-1]) from None
        try:
            self._make_home(home)
            self._make_mountpoints()
            # upper's own attributes are what the container sees as those of "/"
            os.mkdir(f"{home}/upper", 0o755)
            os.mkdir(f"{home}/work", 0o700)
            os.chmod(f"{home}/upper", info.st_mode & 0o7777)
            if info.st_uid or info.st_gid:
                os.chown(f"{home}/upper", info.st_uid, info.st_gid)
        except OSError as err:
            raise disk_error(home, err) from err
        return self._mount(home, layers, volatile=volatile)

    def mount_of(self, container_id: str, layers: Sequence[str], *, volatile: bool) -> Mount:
        home = self.home(container_id)
        if not os.path.isdir(f"{home}/upper"):
            raise NotFound(f"no such snapshot: {container_id}")
        self._clear_volatile_mark(home)
        return self._mount(home, layers, volatile=volatile)

    def _clear_volatile_mark(self, home: str) -> None:
        """The kernel refuses a second mount after a volatile one, because a crash may have lost what was written.

        Within one boot nothing is lost, since the page cache is still there. Raises: Unavailable after a crash.
        """
        try:
            marked = os.stat(f"{home}/{_VOLATILE_MARK}/volatile", follow_symlinks=False).st_mtime
        except OSError:
            return
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        if marked < booted:
            raise Unavailable(
                f"cannot mount the file system of container {os.path.basename(home)[:12]}",
                why="it was not kept on disk (--rm), and the machine stopped meanwhile",
                hint="remove the container",
            )
        self.remove_directory(f"{home}/{_VOLATILE_MARK}")

    def _mount(self, home: str, layers: Sequence[str], *, volatile: bool) -> Mount:
        lower = [f"lowerdir+={path}" for path in (*self.layer_directories(layers), self.mountpoints)]
        writable = [f"upperdir={home}/upper", f"workdir={home}/work", *(("volatile",) if volatile else ())]
        return Mount(type="overlay", source="overlay", target="/", options=(*lower, *writable, *_GUARDS))

    def plan_mount(self, container_id: str, layers: Sequence[str], *, volatile: bool) -> Mount:
        """The mount that `prepare` would give; nothing is made."""
        return self._mount(self.home(container_id), layers, volatile=volatile)

    def directories_of(self, container_id: str, layers: Sequence[str]) -> tuple[str, ...]:
        """What the container's root is made of, topmost first, for `cloison.snapshots.lookup`."""
        return (f"{self.home(container_id)}/upper", *self.layer_directories(layers))

    def layer_directories(self, layers: Sequence[str]) -> Sequence[str]:
        """Directories of the layers that show, topmost first: none below one whose root hides all that was before.

        Overlay heeds the mark of an opaque directory everywhere but on a layer's own root, so we must. Looking costs
        3 us a layer and is not done for the lowest, under which nothing can hide.
        """
        paths = [self.layer_path(layer) for layer in reversed(layers)]
        for count, path in enumerate(paths[:-1], 1):
            if is_opaque(path):
                return paths[:count]
        return paths

    def base_directories(self, layers: Sequence[str]) -> Sequence[str]:
        """What a container's files are compared with."""
        return self.layer_directories(layers)

    def remove(self, container_id: str) -> bool:
        home = self.home(container_id)
        return _remove_unwritten(home) or self.remove_directory(home)

    def usage(self, container_id: str) -> int:
        return measure(f"{self.home(container_id)}/upper", of_disk=True)


def _remove_unwritten(home: str) -> bool:
    """Remove a container's directories when it wrote nothing, as most with ``--rm``: no walk. False: look closer."""
    try:
        os.rmdir(f"{home}/upper")  # refused, with nothing changed, when there is anything in it
        for name in _LEFT_BY_KERNEL:
            if name.endswith("volatile"):
                os.unlink(f"{home}/{name}/dirty")
            os.rmdir(f"{home}/{name}")
        os.rmdir(home)
    except OSError:
        return False
    return True
