"""A mount yet to be made."""

from __future__ import annotations

from cloison.model.record import Record


class Mount(Record):
    """One mount yet to be made; snapshots and volumes produce it, the runtime consumes it (runtime-spec, "Mounts")."""

    type: str  # as in /proc/filesystems, or "bind"
    source: str  # on the host
    target: str  # absolute, seen from inside the container
    options: tuple[str, ...] = ()  # fstab words; order matters to the kernel
