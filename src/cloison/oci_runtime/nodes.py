"""Device nodes for a user namespace, whose root cannot make any: made by us, and mounted one by one."""

from __future__ import annotations

import os
import stat

from cloison.errors import InvalidArgument
from cloison.linux import mounts
from cloison.oci.config_mounts import host_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.oci.runtime import Device, Linux

_KINDS = {"b": stat.S_IFBLK, "c": stat.S_IFCHR, "u": stat.S_IFCHR, "p": stat.S_IFIFO}


class Nodes:
    """Nodes in a directory of our own, which nobody else may enter, and which goes with the container's record."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._fds: list[int] = []

    def open(self, linux: Linux) -> tuple[Device, ...]:
        """The devices with descriptors of their nodes; as they were where we may make none.

        Raises: OSError; InvalidArgument for an owner without a mapping.
        """
        os.mkdir(self._directory, 0o700)
        try:
            return tuple([self._open(device, linux) for device in linux.devices])
        except PermissionError:
            return linux.devices  # the launcher binds the host's own

    def _open(self, device: Device, linux: Linux) -> Device:
        if device.type == "p":
            return device  # everybody may make one
        uid, gid = host_id(device.uid, linux.uid_mappings), host_id(device.gid, linux.gid_mappings)
        if uid < 0 or gid < 0:
            why = "its owner is not mapped in the user namespace"
            raise InvalidArgument(f"cannot make device {device.path}", why=why)
        path = f"{self._directory}/{len(self._fds)}"
        os.mknod(path, _KINDS[device.type], os.makedev(device.major, device.minor))
        os.chown(path, uid, gid)
        os.chmod(path, device.mode)
        self._fds.append(mounts.open_tree(path, recursive=False, follow=False))
        return device.replace(tree=self._fds[-1])

    def close(self) -> None:
        """The descriptors. The nodes stay as long as the container: CRIU knows no mounts of what has no name."""
        while self._fds:
            os.close(self._fds.pop())
