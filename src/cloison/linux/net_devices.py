"""Network devices that change their namespace: moved, renamed, with the addresses that a move takes away."""

from __future__ import annotations

import os

from cloison.errors import NotFound
from cloison.linux import links
from cloison.linux.netlink import ACK, CREATE, EXCLUSIVE, NetlinkSocket, attribute, namespace_of, parse_attributes, u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloison.linux.netlink import Request
    from cloison.oci.runtime import NetDevice

_NEWADDR, _GETADDR = 20, 22
# linux/if_addr.h: what of an address is carried over. Its label has the device's old name
_LOCAL, _ADDRESS, _BROADCAST, _FLAGS, _METRIC, _PROTOCOL = 2, 1, 4, 8, 9, 11
_KEPT = (_LOCAL, _ADDRESS, _BROADCAST, _METRIC, _PROTOCOL)
_F_NODAD, _F_PERMANENT, _F_NOPREFIXROUTE = 0x02, 0x80, 0x200
_SCOPE_UNIVERSE = 0
_AF_INET6 = 10


def move_devices(devices: Iterable[NetDevice], *, inside: int) -> None:
    """Into the namespace of the rtnetlink socket ``inside``, up, with their permanent global addresses.

    runtime-spec config-linux.md, "Network Devices".  Raises: NotFound, Conflict (the name is taken), Denied.
    """
    namespace = namespace_of(inside)
    try:
        with NetlinkSocket() as here, NetlinkSocket(descriptor=inside) as there:
            for device in devices:
                _move(device, here, there, namespace=namespace)
    finally:
        os.close(namespace)


def _move(device: NetDevice, here: NetlinkSocket, there: NetlinkSocket, *, namespace: int) -> None:
    what = f"cannot move network device {device.name} into the container"
    link = links.find_link(here, device.name)
    if link is None:
        raise NotFound(what, why="there is none of this name")
    addresses = _addresses(here, link.index)
    links.apply(here, (links.set_up(device.name, up=False),), what=what)
    links.apply(here, (links.move_link(link.index, name=device.new_name, namespace_fd=namespace),), what=what)
    moved = links.find_link(there, device.new_name)
    if moved is None:
        raise NotFound(what, why=f"{device.new_name} is not there after the move")
    added = [_add(body, moved.index) for body in addresses]
    links.apply(there, (*added, links.set_up(device.new_name)), what=what)


def _addresses(socket: NetlinkSocket, index: int) -> list[bytes]:
    """The messages that tell of a link's addresses: those that somebody gave it and that mean something elsewhere."""
    found = []
    for body in socket.dump(_GETADDR, links.ADDRESS.pack(0, 0, 0, 0, 0)):
        _family, _prefix, flags, scope, link = links.ADDRESS.unpack_from(body)
        if link == index and scope == _SCOPE_UNIVERSE and _all_flags(body, flags) & _F_PERMANENT:
            found.append(body)
    return found


def _all_flags(body: bytes, flags: int) -> int:
    packed = parse_attributes(body, links.ADDRESS.size).get(_FLAGS)
    return int.from_bytes(packed, "little") if packed else flags


def _add(body: bytes, index: int) -> Request:
    family, prefix, flags, scope, _link = links.ADDRESS.unpack_from(body)
    found = parse_attributes(body, links.ADDRESS.size)
    kept = b"".join(attribute(kind, found[kind]) for kind in _KEPT if kind in found)
    # It was ours a moment ago: nobody else can have it
    wanted = _all_flags(body, flags) & _F_NOPREFIXROUTE | (_F_NODAD if family == _AF_INET6 else 0)
    header = links.ADDRESS.pack(family, prefix, 0, scope, index)
    return _NEWADDR, ACK | CREATE | EXCLUSIVE, header + kept + u32(_FLAGS, wanted)
