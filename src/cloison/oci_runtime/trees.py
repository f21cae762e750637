"""What is mounted from outside: sources that only we, in the host's namespaces and with our rights, can open.

A bind is made by the container's first process wherever that can: the kernel then keeps the host's restrictions on it.
These cannot: a source that root of the user namespace may not reach, a mount with mappings of its own, one that is to
share its mounts with the host's, a link that is to be mounted itself.
"""

from __future__ import annotations

import errno
import os

from cloison.errors import Denied, InvalidArgument, NotFound, Unavailable, Unsupported
from cloison.oci.config_mounts import IDMAP, host_id
from cloison.oci_runtime.fitting import COPY
from cloison.runtime.options import split_options
from cloison.runtime.rootfs import is_populated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.errors import CloisonError
    from cloison.model.mount import IdMapping, Mount
    from cloison.oci.runtime import Spec
    from cloison.oci_runtime.nodes import Nodes

_COPY_LINK = "copy-symlink"
_SHARED = frozenset(("shared", "rshared"))
_WAYS = frozenset(("src-nofollow", "dest-nofollow"))


class Trees:
    """What one container's mounts come from, until they are made; a context manager that closes.

    ``scratch``: a directory of ours that does not exist yet, for device nodes. ``everything``: open all binds, for a
    process that does not see the host's mounts any more; no devices then.
    """

    def __init__(self, spec: Spec, *, scratch: str, everything: bool = False) -> None:
        self._spec = spec
        self._everything = everything
        self._scratch = scratch
        self._fds: list[int] = []
        self._nodes: Nodes | None = None
        self._namespaces: dict[object, int] = {}  # by what they map: mounts often agree
        users = [namespace.path for namespace in spec.linux.namespaces if namespace.type == "user"]
        self._own_users = users[0] if users else None  # path, "" is a new one, None the host's

    def __enter__(self) -> Trees:
        return self

    def __exit__(self, *_failure: object) -> None:
        while self._fds:
            os.close(self._fds.pop())
        if self._nodes is not None:
            self._nodes.close()

    def prepare(self) -> Spec:
        """The spec with every mount and device that has to come from outside opened.

        Raises: NotFound, Denied, Unsupported, InvalidArgument, Unavailable, LaunchFailed.
        """
        spec, linux = self._spec, self._spec.linux
        mounted = tuple(map(self._prepare, spec.mounts))
        has_nodes = self._own_users is not None and os.geteuid() == 0 and not self._everything
        if has_nodes and is_populated(spec.root, spec.mounts):
            from cloison.oci_runtime.nodes import Nodes

            self._nodes = Nodes(self._scratch)
            linux = linux.replace(devices=self._nodes.open(linux))
        return spec.replace(mounts=mounted, linux=linux)

    def _prepare(self, mount: Mount) -> Mount:
        if mount.type == "tmpfs" and COPY in mount.options:
            return self._filled(mount)
        if mount.type != "bind":
            return mount
        if _COPY_LINK in mount.options:
            if os.path.islink(mount.source):
                return mount.replace(source=os.readlink(mount.source))
            mount = mount.replace(options=tuple(word for word in mount.options if word != _COPY_LINK))
        return mount.replace(tree=self._open(mount)) if self._comes_from_outside(mount) else mount

    def _filled(self, mount: Mount) -> Mount:
        """A temporary file system that begins with a copy of what it covers."""
        from cloison.linux import mounts
        from cloison.linux.copies import copy_tree
        from cloison.linux.paths import open_in_root

        options = split_options(mount.replace(options=tuple(word for word in mount.options if word != COPY)))
        what = f"cannot copy {mount.target} into a tmpfs"
        try:
            tree = mounts.new_file_system("tmpfs", options.data)
            self._fds.append(tree)
            root = os.open(self._spec.root.mount.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                source = open_in_root(root, os.fsencode(mount.target), flags=os.O_RDONLY | os.O_DIRECTORY)
            finally:
                os.close(root)
            try:
                target = os.open(f"/proc/self/fd/{tree}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    copy_tree(source, target)
                finally:
                    os.close(target)
            finally:
                os.close(source)
        except OSError as err:
            raise _refusal(what, "tmpfs", err) from err
        return mount.replace(tree=tree)

    def _comes_from_outside(self, mount: Mount) -> bool:
        if self._everything or not (_SHARED | _WAYS | IDMAP).isdisjoint(mount.options):
            return True
        return self._own_users is not None and os.geteuid() == 0 and not self._is_reachable(mount.source)

    def _is_reachable(self, path: str) -> bool:
        """Whether root inside may pass through every directory on the way, as the modes have it."""
        linux = self._spec.linux
        uid, gid = host_id(0, linux.uid_mappings), host_id(0, linux.gid_mappings)
        for way in {path, os.path.realpath(path)}:
            while (way := os.path.dirname(way)) != "/" and way:
                try:
                    status = os.stat(way)
                except OSError:
                    return True  # it is not there: the bind will say so
                shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
                if not status.st_mode >> shift & 1:
                    return False
        return True

    def _open(self, mount: Mount) -> int:
        from cloison.linux import mounts

        what = f"cannot mount {mount.source} on {mount.target}"
        maps_ids = not IDMAP.isdisjoint(mount.options)
        users = self._users(mount, what) if maps_ids else -1
        try:
            tree = mounts.open_tree(
                mount.source, recursive="rbind" in mount.options, follow="src-nofollow" not in mount.options
            )
        except OSError as err:
            raise _refusal(what, "open_tree", err) from err
        self._fds.append(tree)
        if maps_ids:
            try:
                mounts.map_ids(tree, user_namespace=users, recursive="ridmap" in mount.options)
            except OSError as err:
                raise _refusal(what, "mount_setattr, id mappings", err) from err
        return tree

    def _users(self, mount: Mount, what: str) -> int:
        """The user namespace that has the mount's mappings, or else the container's."""
        linux = self._spec.linux
        maps = (mount.uid_mappings, mount.gid_mappings)
        if not mount.uid_mappings:
            if self._own_users is None:
                # config.md, "idmap": without mappings and user namespace "an error MUST be returned"
                raise InvalidArgument(what, why="idmap needs mappings, of the mount or of a user namespace")
            maps = (linux.uid_mappings, linux.gid_mappings)
        key = maps if maps[0] else self._own_users
        if key not in self._namespaces:
            self._namespaces[key] = self._open_users(*maps, what=what)
        return self._namespaces[key]

    def _open_users(self, uids: tuple[IdMapping, ...], gids: tuple[IdMapping, ...], *, what: str) -> int:
        from cloison.runtime.user_namespaces import user_namespace

        try:
            path = self._own_users or ""
            fd = user_namespace(uids, gids) if uids else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as err:
            raise _refusal(what, f"open {self._own_users}", err) from err
        self._fds.append(fd)
        return fd


def _refusal(what: str, call: str, err: OSError) -> CloisonError:
    why = f"{call}: {os.strerror(err.errno or 0).lower()}"
    if err.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(what, why=why)
    if err.errno in (errno.EPERM, errno.EACCES):
        return Denied(what, why=why, hint="it takes CAP_SYS_ADMIN on the host")
    if err.errno in (errno.EINVAL, errno.ENOSYS):
        return Unsupported(what, why=why, hint="does the file system, or this kernel, know id-mapped mounts?")
    return Unavailable(what, why=why)
