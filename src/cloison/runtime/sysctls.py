"""Which kernel parameters a container may be given: those that live in its own namespaces, matched exactly.

A key or value that is written blindly is a way out (CVE-2022-0811: ``+`` and a newline smuggled a second one in).
"""

from __future__ import annotations

from cloison.errors import Denied, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Docker's defaults: they take the need for CAP_NET_BIND_SERVICE and CAP_NET_RAW away.
NETWORK = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}

_IPC = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
_UTS = "kernel.domainname"
_IPC_PREFIX = "fs.mqueue."
_NETWORK_PREFIX = "net."
_KEY = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./")
_VALUE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-., \t:")


def plan_sysctls(requested: Mapping[str, str], *, own_network: bool, own_ipc: bool) -> dict[str, str]:
    """Key with dots -> value: the defaults of a network namespace of one's own, then what was asked.

    Raises: InvalidArgument (malformed), Denied (it would change the host).
    """
    chosen = dict(NETWORK) if own_network else {}
    return chosen | check_sysctls(requested, own_network=own_network, own_ipc=own_ipc)


def check_sysctls(
    requested: Mapping[str, str], *, own_network: bool, own_ipc: bool, own_uts: bool = False
) -> dict[str, str]:
    """What was asked, with dots. Raises: as `plan_sysctls`."""
    chosen = {}
    for key, value in requested.items():
        name = _normalise(key)
        if not value or not _VALUE.issuperset(value):
            raise InvalidArgument(f"invalid value for sysctl {key!r}: {value!r}")
        if not (own_uts and name == _UTS):
            _check_owner(name, own_network=own_network, own_ipc=own_ipc)
        chosen[name] = value
    return chosen


def _normalise(key: str) -> str:
    """``net/ipv4/x`` and ``net.ipv4.x`` to dots. As sysctl(8), but never mixed."""
    parts = key.replace("/", ".").split(".")
    if not _KEY.issuperset(key) or len(parts) < 2 or "" in parts:
        raise InvalidArgument(f"invalid sysctl {key!r}", hint="write it as in net.ipv4.ip_forward")
    if "/" in key and "." in key:
        raise InvalidArgument(f"invalid sysctl {key!r}", why="it mixes dots and slashes")
    return ".".join(parts)


def _check_owner(name: str, *, own_network: bool, own_ipc: bool) -> None:
    if name.startswith(_NETWORK_PREFIX):
        owned, kind = own_network, "network"
    elif name in _IPC or name.startswith(_IPC_PREFIX):
        owned, kind = own_ipc, "IPC"
    else:
        raise Denied(f"sysctl {name!r} is not allowed", why="it is not in a separate kernel namespace")
    if not owned:
        raise Denied(f"sysctl {name!r} is not allowed", why=f"the container has no {kind} namespace of its own")
