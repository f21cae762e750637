"""Capabilities by name and by number (capabilities(7), linux/capability.h)."""

from __future__ import annotations

from cloison.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# The index of a name is its bit.
CAPABILITIES: tuple[str, ...] = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
        "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
        "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE "
        "AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF "
        "CHECKPOINT_RESTORE"
    ).split()
)
ALL = "ALL"
_BITS = {name: bit for bit, name in enumerate(CAPABILITIES)}


def normalise(name: str) -> str:
    """``net_admin``, ``NET_ADMIN`` and ``cap_net_admin`` to ``CAP_NET_ADMIN``; ``all`` and ``CAP_ALL`` to ``ALL``.

    Raises: InvalidArgument for a name that no kernel knows.
    """
    upper = name.upper() if name.isascii() else ""  # "ſ".upper() is "S"
    if upper in (ALL, "CAP_ALL"):
        return ALL
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in _BITS:
        raise InvalidArgument(
            f"unknown capability {name!r}",
            why="the kernel has no capability of this name",
            hint="names are those of capabilities(7), with or without CAP_, for instance NET_ADMIN; or ALL",
        )
    return full


def mask_of(names: Iterable[str]) -> int:
    """One bit a capability; ``ALL`` is every one of them. Raises: InvalidArgument."""
    mask = 0
    for name in names:
        bit = _BITS.get(name)  # the usual case: already in full
        if bit is None:
            full = normalise(name)
            if full == ALL:
                return (1 << len(CAPABILITIES)) - 1
            bit = _BITS[full]
        mask |= 1 << bit
    return mask


def names_in(mask: int) -> tuple[str, ...]:
    """The names of the bits, lowest first; bits that this release does not know are left out."""
    return tuple(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1)
