"""Connection tracking: forgetting flows (conntrack's ctnetlink, linux/netfilter/nfnetlink_conntrack.h).

A UDP sender that never pauses keeps its entry alive, and with it the translation, or its absence, from before a
container came or went. TCP needs no help: a new connection is a new entry.
"""

from __future__ import annotations

import errno
from struct import Struct

from cloison.linux.netlink import (
    ACK,
    NETFILTER,
    NetlinkError,
    NetlinkSocket,
    attribute,
    parse_attributes,
    refusal_error,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SUBSYSTEM = 1  # NFNL_SUBSYS_CTNETLINK
_GET, _DELETE = _SUBSYSTEM << 8 | 1, _SUBSYSTEM << 8 | 2
_TUPLE_ORIGINAL, _TUPLE_REPLY = 1, 2
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_IPV4_SOURCE = 1
_PROTOCOL_NUMBER, _PROTOCOL_DESTINATION = 1, 3
_UDP = b"\x11"
_NESTED = 0x8000
_nfgen = Struct("=BB2s")
_HEAD = _nfgen.pack(2, 0, b"\0\0")  # AF_INET


def forget_udp_flows(wanted: Callable[[int, bytes], bool]) -> int:
    """Delete every IPv4 UDP flow for which ``wanted(first destination port, address that answers)``; how many.

    Where the kernel has no ctnetlink, nothing can be done and nothing is.
    """
    with NetlinkSocket(NETFILTER) as socket:
        try:
            flows = socket.dump(_GET, _HEAD)
            doomed = [flow for body in flows if (flow := _match(body, wanted))]
            if doomed:
                requests = [(_DELETE, ACK, _HEAD + attribute(_TUPLE_ORIGINAL | _NESTED, flow)) for flow in doomed]
                socket.transact(requests, tolerate=(errno.ENOENT,))
            return len(doomed)
        except NetlinkError as err:
            if err.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                return 0
            raise refusal_error("cannot clear UDP flows", err) from err


def _match(body: bytes, wanted: Callable[[int, bytes], bool]) -> bytes:
    """The flow's original tuple when it is wanted, else nothing."""
    fields = parse_attributes(body, _nfgen.size)
    original = fields.get(_TUPLE_ORIGINAL, b"")
    protocol = parse_attributes(parse_attributes(original).get(_TUPLE_PROTOCOL, b""))
    if protocol.get(_PROTOCOL_NUMBER) != _UDP:
        return b""
    answer = parse_attributes(parse_attributes(fields.get(_TUPLE_REPLY, b"")).get(_TUPLE_IP, b""))
    port = int.from_bytes(protocol.get(_PROTOCOL_DESTINATION, b""), "big")
    return original if wanted(port, answer.get(_IPV4_SOURCE, b"")) else b""
