"""Links, IPv4 addresses and routes: the dozen rtnetlink messages that a container's network needs (rtnetlink(7)).

Functions named for a change build a request and touch nothing; ``apply`` sends a batch. So a plan is data.
"""

from __future__ import annotations

import errno
from _socket import AF_INET, inet_ntop, inet_pton
from struct import Struct

from cloison.linux.netlink import (
    ACK,
    CREATE,
    EXCLUSIVE,
    NetlinkError,
    attribute,
    iterate_attributes,
    nested,
    parse_attributes,
    refusal_error,
    text,
    u32,
)  # fmt: skip
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloison.linux.netlink import NetlinkSocket, Reply, Request

# Message kinds (linux/rtnetlink.h)
_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _DELADDR, _GETADDR, _NEWROUTE, _GETROUTE = 20, 21, 22, 24, 26

# Link attributes (linux/if_link.h)
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_AF_SPEC, _IFLA_NET_NS_FD = 1, 3, 10, 18, 26, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_INFO_PEER = 1
_IFLA_INET6_ADDR_GEN_MODE = 8
_ADDR_GEN_MODE_NONE = 1
_IFLA_BRPORT_MODE = 4
_IFF_UP = 1
_AF_INET6 = 10

# Address and route attributes (linux/if_addr.h, linux/rtnetlink.h)
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NOPREFIXROUTE = 0x200
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC = 1, 4, 5, 7
_TABLE_MAIN, _PROTOCOL_STATIC, _SCOPE_UNIVERSE, _SCOPE_LINK, _TYPE_UNICAST = 254, 4, 0, 253, 1
_TYPES_OF_NETWORKS = (
    1,
    3,
    6,
    7,
    8,
)  # unicast broadcast blackhole unreachable prohibit: what an address plan must avoid

_link = Struct("=BxHiII")  # family, type, index, flags, change
ADDRESS = Struct("=BBBBI")  # family, prefix, flags, scope, index
_route = Struct("=BBBBBBBBI")  # family, dst prefix, src prefix, tos, table, protocol, scope, type, flags
_u32 = Struct("=I")


class Link(Record):
    """One network interface."""

    index: int
    name: str
    up: bool  # administratively; says nothing of the carrier
    master: int = 0  # index of the bridge it is a port of
    mac: str = ""


class Network(Record):
    """A range of addresses in use on this host: by an interface's address, or by a route."""

    address: str
    prefix: int
    link: int = 0  # index of the interface, 0 when there is none


def apply(
    socket: NetlinkSocket, requests: Sequence[Request], *, what: str, tolerate: Iterable[int] = ()
) -> list[Reply]:
    """Carry out a batch. Raises: the CloisonError that fits the first refusal; ``what`` is its first part."""
    try:
        return socket.transact(requests, tolerate=tolerate)
    except NetlinkError as err:
        raise refusal_error(what, err) from err


def find_link(socket: NetlinkSocket, name: str) -> Link | None:
    """The link of this name, or None."""
    try:
        replies = socket.transact([(_GETLINK, ACK, _link.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name))])
    except NetlinkError as err:
        if err.errno == errno.ENODEV:
            return None
        raise refusal_error(f"cannot look up link {name}", err) from err
    return _parse_link(replies[0][1])


def list_links(socket: NetlinkSocket, *, master: int = 0) -> list[Link]:
    """Every link, or the ports of one bridge."""
    wanted = u32(_IFLA_MASTER, master) if master else b""
    found = [_parse_link(body) for body in socket.dump(_GETLINK, _link.pack(0, 0, 0, 0, 0) + wanted)]
    return [link for link in found if not master or link.master == master]


def new_bridge(name: str) -> Request:
    """A bridge that is down."""
    info = nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "bridge"))
    return _NEWLINK, ACK | CREATE | EXCLUSIVE, _link.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name) + info


def new_veth(name: str, *, master: int, peer: str, peer_mac: str, namespace_fd: int) -> Request:
    """A pair: one end here, down, a port of bridge ``master``; the other born inside the namespace, named, down.

    Nothing is moved between namespaces: a move waits for RCU grace periods, a birth does not.
    """
    inside = (
        text(_IFLA_IFNAME, peer) + attribute(_IFLA_ADDRESS, parse_mac(peer_mac)) + u32(_IFLA_NET_NS_FD, namespace_fd)
    )
    data = nested(_IFLA_INFO_DATA, nested(_VETH_INFO_PEER, _link.pack(0, 0, 0, 0, 0) + inside))
    info = nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "veth"), data)
    here = text(_IFLA_IFNAME, name) + u32(_IFLA_MASTER, master)
    return _NEWLINK, ACK | CREATE | EXCLUSIVE, _link.pack(0, 0, 0, 0, 0) + here + info


def no_link_local(name: str) -> Request:
    """Let the link make no IPv6 address of its own. A kernel without IPv6 answers EAFNOSUPPORT."""
    inet6 = nested(_AF_INET6, attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_ADDR_GEN_MODE_NONE])))
    return _SETLINK, ACK, _link.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name) + nested(_IFLA_AF_SPEC, inet6)


def set_up(name: str, *, up: bool = True) -> Request:
    """Bring the link up, or down."""
    return _SETLINK, ACK, _link.pack(0, 0, 0, _IFF_UP if up else 0, _IFF_UP) + text(_IFLA_IFNAME, name)


def move_link(index: int, *, name: str, namespace_fd: int) -> Request:
    """Into another network namespace, under this name there; the link must be down. EEXIST when the name is taken."""
    there = u32(_IFLA_NET_NS_FD, namespace_fd) + text(_IFLA_IFNAME, name)
    return _SETLINK, ACK, _link.pack(0, 0, index, 0, 0) + there


def set_mac(name: str, *, mac: str) -> Request:
    """Give the link an Ethernet address."""
    named = text(_IFLA_IFNAME, name) + attribute(_IFLA_ADDRESS, parse_mac(mac))
    return _SETLINK, ACK, _link.pack(0, 0, 0, 0, 0) + named


def set_master(name: str, *, master: int) -> Request:
    """Make the link a port of the bridge with this index."""
    return _SETLINK, ACK, _link.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name) + u32(_IFLA_MASTER, master)


def reflect_port(name: str) -> Request:
    """Let a bridge port send frames back where they came from ("hairpin").

    A container that calls a port of the host which leads to itself needs it where br_netfilter translates packets
    inside the bridge (net.bridge.bridge-nf-call-iptables is 1, its default).
    """
    data = nested(_IFLA_INFO_SLAVE_DATA, attribute(_IFLA_BRPORT_MODE, b"\1"))
    info = nested(_IFLA_LINKINFO, text(_IFLA_INFO_SLAVE_KIND, "bridge"), data)
    return _NEWLINK, ACK, _link.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name) + info


def delete_link(name: str) -> Request:
    """Remove the link (and its peer). ENODEV when there is none."""
    return _DELLINK, ACK, _link.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name)


def add_address(index: int, address: str, *, prefix: int, connected_route: bool = True) -> Request:
    """An IPv4 address with its broadcast address; ``connected_route=False`` leaves out the route to its network."""
    local = inet_pton(AF_INET, address)
    broadcast = pack_ipv4(parse_ipv4(address) | ((1 << (32 - prefix)) - 1))
    body = ADDRESS.pack(AF_INET, prefix, 0, _SCOPE_UNIVERSE, index)
    body += attribute(_IFA_LOCAL, local) + attribute(_IFA_ADDRESS, local) + attribute(_IFA_BROADCAST, broadcast)
    if not connected_route:
        body += u32(_IFA_FLAGS, _IFA_F_NOPREFIXROUTE)
    return _NEWADDR, ACK | CREATE | EXCLUSIVE, body


def delete_address(index: int, address: str, *, prefix: int) -> Request:
    """Take an IPv4 address from the link. EADDRNOTAVAIL when it has none such."""
    body = ADDRESS.pack(AF_INET, prefix, 0, _SCOPE_UNIVERSE, index) + attribute(_IFA_LOCAL, inet_pton(AF_INET, address))
    return _DELADDR, ACK, body


def add_network_route(index: int, network: str, *, prefix: int, source: str) -> Request:
    """The route to a directly connected network; EEXIST when anybody has a route to exactly this network."""
    body = _route.pack(AF_INET, prefix, 0, 0, _TABLE_MAIN, _PROTOCOL_STATIC, _SCOPE_LINK, _TYPE_UNICAST, 0)
    body += attribute(_RTA_DST, inet_pton(AF_INET, network)) + u32(_RTA_OIF, index)
    return _NEWROUTE, ACK | CREATE | EXCLUSIVE, body + attribute(_RTA_PREFSRC, inet_pton(AF_INET, source))


def add_default_route(index: int, gateway: str) -> Request:
    """The route to everywhere."""
    body = _route.pack(AF_INET, 0, 0, 0, _TABLE_MAIN, _PROTOCOL_STATIC, _SCOPE_UNIVERSE, _TYPE_UNICAST, 0)
    body += attribute(_RTA_GATEWAY, inet_pton(AF_INET, gateway)) + u32(_RTA_OIF, index)
    return _NEWROUTE, ACK | CREATE | EXCLUSIVE, body


def list_networks(socket: NetlinkSocket) -> list[Network]:
    """Every IPv4 range that an address or a route of this namespace covers; the default route is none."""
    found = []
    for body in socket.dump(_GETADDR, ADDRESS.pack(AF_INET, 0, 0, 0, 0)):
        _family, prefix, _flags, _scope, index = ADDRESS.unpack_from(body)
        if packed := parse_attributes(body, ADDRESS.size).get(_IFA_ADDRESS):
            found.append(Network(address=inet_ntop(AF_INET, packed), prefix=prefix, link=index))
    for body in socket.dump(_GETROUTE, _route.pack(AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
        prefix, kind = body[1], body[7]
        if prefix == 0 or kind not in _TYPES_OF_NETWORKS:
            continue
        found_in = parse_attributes(body, _route.size)
        index = _u32.unpack(found_in[_RTA_OIF])[0] if _RTA_OIF in found_in else 0
        if packed := found_in.get(_RTA_DST):
            found.append(Network(address=inet_ntop(AF_INET, packed), prefix=prefix, link=index))
    return found


def _parse_link(body: bytes) -> Link:
    _family, _type, index, flags, _change = _link.unpack_from(body)
    fields = dict(iterate_attributes(body, _link.size))
    return Link(
        index=index,
        name=fields.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        up=bool(flags & _IFF_UP),
        master=_u32.unpack(fields[_IFLA_MASTER])[0] if _IFLA_MASTER in fields else 0,
        mac=fields.get(_IFLA_ADDRESS, b"").hex(":"),
    )  # fmt: skip


def parse_mac(mac: str) -> bytes:
    """Six bytes of "02:…". Raises: ValueError."""
    packed = bytes.fromhex(mac.replace(":", ""))
    if len(packed) != 6:
        raise ValueError(f"{mac!r} is not an Ethernet address")
    return packed


def parse_ipv4(address: str) -> int:
    """An IPv4 address as a number. Raises: OSError for anything but four decimal numbers."""
    return int.from_bytes(inet_pton(AF_INET, address), "big")


def pack_ipv4(number: int) -> bytes:
    return number.to_bytes(4, "big")


def render_ipv4(number: int) -> str:
    return inet_ntop(AF_INET, pack_ipv4(number))
