"""Netlink, the wire: messages, attributes, one socket, exact errors (netlink(7); RFC 3549).

What the messages mean is in `cloison.linux.links` (links, addresses, routes) and `cloison.linux.nftables`.

    message   := u32 length  u16 kind  u16 flags  u32 sequence  u32 port  body
    attribute := u16 length  u16 kind  payload

Both in host byte order and padded to 4 bytes; an attribute's length does not count the padding.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
from struct import Struct

from cloison.errors import CloisonError, Conflict, Denied, Internal, NotFound, Unavailable, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType
    from typing import TypeAlias

    Request: TypeAlias = tuple[int, int, bytes]  # kind, flags, body
    Reply: TypeAlias = tuple[int, bytes]  # kind, body

ROUTE = 0
NETFILTER = 12

# Flags of a request (linux/netlink.h). "Request" itself is always set.
ACK = 0x4
REPLACE = 0x100
EXCLUSIVE = 0x200
CREATE = 0x400
APPEND = 0x800

_REQUEST = 0x1
_DUMP = 0x300
_DUMP_INTERRUPTED = 0x10
_CAPPED = 0x100
_HAS_ATTRIBUTES = 0x200
_ERROR = 2
_DONE = 3
_SOL_NETLINK = 270
_CAP_ACK = 10
_EXT_ACK = 11
_SNDBUFFORCE = 32
_SIOCGSKNS = 0x894C
_SEND_LIMIT_BYTES = 1 << 17  # below the default send buffer whatever the distribution set
_NESTED = 0x8000
_KIND_MASK = 0x3FFF
_DUMP_TRIES = 5

_header = Struct("=IHHII")
_attribute = Struct("=HH")
_u32 = Struct("=I")
_error = Struct("=i")


class NetlinkError(OSError):
    """The kernel refused: ``errno``, and ``strerror`` in its own words where it gave some (extended ack)."""

    def __init__(self, number: int, *, reason: str = "", position: int = -1) -> None:
        super().__init__(number, reason or os.strerror(number).lower())
        self.number = number
        self.position = position  # of the refused request among those sent; -1 is unknown


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    return _attribute.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nested(kind: int, *members: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NESTED, b"".join(members))


def text(kind: int, value: str) -> bytes:
    """An attribute with a NUL-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """An attribute with a 32-bit number in host byte order."""
    return attribute(kind, _u32.pack(value))


def parse_attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes from ``offset`` on; of a kind that repeats, the last one."""
    return dict(iterate_attributes(data, offset))


def iterate_attributes(data: bytes, offset: int = 0) -> list[tuple[int, bytes]]:
    """The attributes from ``offset`` on, in order. Raises: ValueError when a length points outside."""
    found: list[tuple[int, bytes]] = []
    while offset + 4 <= len(data):
        length, kind = _attribute.unpack_from(data, offset)
        if length < 4 or offset + length > len(data):
            raise ValueError(f"attribute of {length} bytes at {offset} of {len(data)}")
        found.append((kind & _KIND_MASK, data[offset + 4 : offset + length]))
        offset += (length + 3) & ~3
    return found


class NetlinkSocket:
    """One netlink socket; a context manager. Not for two threads at once.

    The kernel answers while we send (``netlink_unicast_kernel``), so every read is non-blocking: nothing can hang.
    """

    def __init__(self, protocol: int = ROUTE, *, descriptor: int = -1) -> None:
        """Open one in the current network namespace, or borrow ``descriptor``, which stays the caller's to close."""
        self._borrowed = descriptor >= 0
        if self._borrowed:
            self._socket = _socket.socket(fileno=descriptor)
        else:
            self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0
        try:
            self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        if self._borrowed:
            self._socket.detach()
        else:
            self._socket.close()

    def __enter__(self) -> NetlinkSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def transact(self, requests: Sequence[Request], *, tolerate: Iterable[int] = ()) -> list[Reply]:
        """Send all requests in one system call, read every acknowledgement, give back what the kernel said besides.

        rtnetlink carries them out in order and goes on after a refusal; nftables does all or none.
        Raises: NetlinkError for the first refusal whose errno is not among ``tolerate``.
        """
        first, data = self._encode(requests)
        if len(data) > _SEND_LIMIT_BYTES:
            self._socket.setsockopt(_socket.SOL_SOCKET, _SNDBUFFORCE, 2 * len(data))
        waiting = {first + position for position, request in enumerate(requests) if request[1] & ACK}
        self._socket.send(data)
        replies: list[Reply] = []
        refusals: list[NetlinkError] = []
        while waiting and (batch := self._receive()):
            for kind, flags, sequence, body in batch:
                if kind != _ERROR:
                    replies.append((kind, body))
                    continue
                waiting.discard(sequence)
                if refusal := _parse_error(body, flags, position=sequence - first):
                    refusals.append(refusal)
        for refusal in refusals:
            if refusal.number not in tolerate:
                raise refusal
        if waiting and not refusals:
            raise NetlinkError(errno.ENODATA, reason="the kernel did not answer")
        return replies

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Every object of a sort. Raises: NetlinkError."""
        for _ in range(_DUMP_TRIES):
            found = self._dump_once(kind, body)
            if found is not None:
                return found
        raise NetlinkError(errno.EBUSY, reason="the list changed each time it was read")

    def _dump_once(self, kind: int, body: bytes) -> list[bytes] | None:
        """None when the list changed under the reader (NLM_F_DUMP_INTR): the kernel says to ask again."""
        first, data = self._encode([(kind, _DUMP, body)])
        self._socket.send(data)
        found: list[bytes] = []
        whole = True
        while batch := self._receive():
            for reply, flags, sequence, content in batch:
                if sequence != first:
                    continue
                whole = whole and not flags & _DUMP_INTERRUPTED
                if reply in (_ERROR, _DONE):
                    if refusal := _parse_error(content, 0, position=0):
                        raise refusal
                    return found if whole else None
                found.append(content)
        raise NetlinkError(errno.ENODATA, reason="the kernel did not finish its list")

    def _encode(self, requests: Sequence[Request]) -> tuple[int, bytes]:
        first = self._sequence + 1
        pieces: list[bytes] = []
        for kind, flags, body in requests:
            self._sequence += 1
            pieces += (
                _header.pack(16 + len(body), kind, flags | _REQUEST, self._sequence, 0),
                body,
                bytes(-len(body) % 4),
            )
        return first, b"".join(pieces)

    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        """Kind, flags, sequence and body of each message that is there; empty when none is."""
        try:
            data = self._socket.recv(1 << 16, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        messages = []
        offset = 0
        while offset + 16 <= len(data):
            length, kind, flags, sequence, _port = _header.unpack_from(data, offset)
            messages.append((kind, flags, sequence, data[offset + 16 : offset + length]))
            offset += (max(length, 16) + 3) & ~3
        return messages


def namespace_of(descriptor: int) -> int:
    """A new descriptor of the network namespace that this socket lives in (ioctl_ns(2): SIOCGSKNS). Raises: OSError."""
    return fcntl.ioctl(descriptor, _SIOCGSKNS)


def _parse_error(body: bytes, flags: int, *, position: int) -> NetlinkError | None:
    """NLMSG_ERROR := i32 -errno, the refused header [its body, unless capped] [attributes: 1 is a text]."""
    number = -_error.unpack_from(body)[0] if len(body) >= 4 else 0
    if number == 0:
        return None
    reason = ""
    if flags & _HAS_ATTRIBUTES:
        length = 16 if flags & _CAPPED else _u32.unpack_from(body, 4)[0]
        words = parse_attributes(body, 4 + ((length + 3) & ~3)).get(1, b"")
        reason = words.rstrip(b"\0").decode(errors="replace")
    return NetlinkError(number, reason=reason, position=position)


_TYPES: dict[int, type[CloisonError]] = {
    errno.EPERM: Denied, errno.EACCES: Denied,
    errno.EEXIST: Conflict, errno.EADDRINUSE: Conflict,
    errno.ENODEV: NotFound, errno.ENOENT: NotFound, errno.ESRCH: NotFound, errno.EADDRNOTAVAIL: NotFound,
    errno.EOPNOTSUPP: Unsupported, errno.EAFNOSUPPORT: Unsupported, errno.EPROTONOSUPPORT: Unsupported,
    errno.EBUSY: Unavailable, errno.ENOBUFS: Unavailable, errno.ENOMEM: Unavailable, errno.ENOSPC: Unavailable,
    errno.EXFULL: Unavailable, errno.ENETDOWN: Unavailable, errno.ENETUNREACH: Unavailable, errno.EAGAIN: Unavailable,
}  # fmt: skip


def refusal_error(what: str, err: OSError) -> CloisonError:
    """A refusal as an error for people; ``what`` names the object that could not be made, changed or removed."""
    kind = _TYPES.get(err.errno or 0, Internal)
    hint = "run as root" if kind is Denied else ""
    if kind is Unsupported:
        hint = "this kernel lacks the feature: load its module, or use --network none or host"
    return kind(what, why=err.strerror or "", hint=hint)
