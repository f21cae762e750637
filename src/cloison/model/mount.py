"""A mount yet to be made."""

from __future__ import annotations

from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar


class IdMapping(Record):
    """A range of ids, as a line of /proc/PID/uid_map."""

    container_id: int
    host_id: int
    size: int


class Mount(Record):
    """One mount yet to be made; snapshots and volumes produce it, the runtime consumes it (runtime-spec, "Mounts")."""

    type: str  # as in /proc/filesystems, or "bind"
    source: str  # on the host
    target: str  # absolute, seen from inside the container
    options: tuple[str, ...] = ()  # fstab words; order matters to the kernel
    uid_mappings: tuple[IdMapping, ...] = ()  # of the mount itself: what its files' owners are shown as
    gid_mappings: tuple[IdMapping, ...] = ()
    tree: int = -1  # descriptor of a detached mount that is put there; the source is then only its name

    NESTED: ClassVar[Mapping[str, Any]] = {"uid_mappings": IdMapping, "gid_mappings": IdMapping}
