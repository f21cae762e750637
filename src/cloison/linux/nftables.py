"""nftables: the static ruleset through ``nft`` once, what changes with each container through netlink (nft(8)).

An element is a key of a map and its value. Keys and values are concatenations of fields, each padded to four bytes, in
network byte order (nf_tables_api.c, "NFT_REG32"); ``concatenate`` makes them.

What happens to elements that are there already, or are not:
    add     the same key with the same value: nothing, no error
            the same key with another value: Conflict, and nothing at all is added
    delete  a missing key, map or table: nothing, no error
"""

from __future__ import annotations

import errno
from struct import Struct

from cloison.linux.netlink import (
    ACK,
    CREATE,
    NETFILTER,
    NetlinkError,
    NetlinkSocket,
    attribute,
    iterate_attributes,
    nested,
    parse_attributes,
    refusal_error,
    text,
)  # fmt: skip
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloison.linux.netlink import Request

_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_GETTABLE, _DELTABLE, _NEWSETELEM, _GETSETELEM, _DELSETELEM = (_SUBSYSTEM << 8 | n for n in (1, 2, 12, 13, 14))
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_FAMILY_IPV4 = 2  # NFPROTO_IPV4, "ip"

# Attributes (linux/netfilter/nf_tables.h)
_TABLE_NAME = 1
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_LIST_ELEMENT = 1
_ELEMENT_KEY, _ELEMENT_DATA = 1, 2
_DATA_VALUE = 1

_ELEMENTS_A_MESSAGE = 1000  # a nested attribute holds at most 65,535 bytes
_nfgen = Struct("=BB2s")  # family, version, resource (big endian)


class Element(Record):
    """One entry of a map (or, without a value, of a set)."""

    map: str
    key: bytes
    value: bytes = b""


def concatenate(*fields: bytes) -> bytes:
    """A key or value of several fields, each padded to a 32-bit register."""
    return b"".join(field + bytes(-len(field) % 4) for field in fields)


def load_ruleset(ruleset: str) -> None:
    """Apply a ruleset in nft's language, all of it or nothing. Raises: CloisonError with what nft said."""
    from cloison.linux.command import run  # not on the hot path: once for each boot

    run(["nft", "-f", "-"], input=ruleset.encode())


def table_exists(table: str) -> bool:
    """Whether the table stands in family ip."""
    with NetlinkSocket(NETFILTER) as socket:
        try:
            socket.transact([(_GETTABLE, ACK, _head() + text(_TABLE_NAME, table))])
        except NetlinkError as err:
            if err.errno == errno.ENOENT:
                return False
            raise refusal_error(f"cannot look up nft table {table}", err) from err
    return True


def delete_table(table: str) -> None:
    """Remove the table and all in it; nothing happens when there is none."""
    with NetlinkSocket(NETFILTER) as socket:
        try:
            _commit(socket, [(_DELTABLE, ACK, _head() + text(_TABLE_NAME, table))])
        except NetlinkError as err:
            if err.errno != errno.ENOENT:
                raise refusal_error(f"cannot delete nft table {table}", err) from err


def add_elements(table: str, elements: Sequence[Element]) -> None:
    """Add them all in one transaction.

    Raises: NotFound (the table or a map is not there), Conflict (a key has another value already), Denied, Unavailable.
    """
    if not elements:
        return
    with NetlinkSocket(NETFILTER) as socket:
        try:
            _commit(socket, _element_requests(_NEWSETELEM, table, elements=elements, flags=ACK | CREATE))
        except NetlinkError as err:
            raise refusal_error(f"cannot add {len(elements)} elements to nft table {table}", err) from err


def delete_elements(table: str, elements: Sequence[Element]) -> None:
    """Delete them, the values do not matter; in one transaction when all are there. Raises: Denied, Unavailable."""
    if not elements:
        return
    with NetlinkSocket(NETFILTER) as socket:
        try:
            try:
                _commit(socket, _element_requests(_DELSETELEM, table, elements=elements, flags=ACK))
            except NetlinkError as err:
                if err.errno != errno.ENOENT:
                    raise
                _delete_each(socket, table, elements=elements)
        except NetlinkError as err:
            raise refusal_error(f"cannot delete {len(elements)} elements of nft table {table}", err) from err


def _delete_each(socket: NetlinkSocket, table: str, *, elements: Iterable[Element]) -> None:
    """One missing key made the kernel refuse the whole batch (NFT_MSG_DESTROYSETELEM would not, from Linux 6.3)."""
    for element in elements:
        _commit(socket, _element_requests(_DELSETELEM, table, elements=[element], flags=ACK), tolerate=(errno.ENOENT,))


def list_elements(table: str, name: str) -> list[Element]:
    """Every element of a map or set. Raises: NotFound."""
    found = []
    wanted = _head() + text(_LIST_TABLE, table) + text(_LIST_SET, name)
    with NetlinkSocket(NETFILTER) as socket:
        try:
            bodies = socket.dump(_GETSETELEM, wanted)
        except NetlinkError as err:
            raise refusal_error(f"cannot list {name} of nft table {table}", err) from err
    for body in bodies:
        for _kind, packed in iterate_attributes(parse_attributes(body, 4).get(_LIST_ELEMENTS, b"")):
            fields = parse_attributes(packed)
            found.append(
                Element(map=name, key=_value(fields.get(_ELEMENT_KEY)), value=_value(fields.get(_ELEMENT_DATA)))
            )
    return found


def _value(packed: bytes | None) -> bytes:
    return parse_attributes(packed).get(_DATA_VALUE, b"") if packed else b""


def _commit(socket: NetlinkSocket, requests: Sequence[Request], *, tolerate: Iterable[int] = ()) -> None:
    """One transaction: the kernel carries out all of it at the end mark, or none."""
    resource = _nfgen.pack(0, 0, _SUBSYSTEM.to_bytes(2, "big"))
    socket.transact([(_BATCH_BEGIN, 0, resource), *requests, (_BATCH_END, 0, resource)], tolerate=tolerate)


def _element_requests(kind: int, table: str, *, elements: Sequence[Element], flags: int) -> list[Request]:
    requests: list[Request] = []
    for name in dict.fromkeys(element.map for element in elements):
        packed = [_pack_element(element) for element in elements if element.map == name]
        head = _head() + text(_LIST_TABLE, table) + text(_LIST_SET, name)
        for start in range(0, len(packed), _ELEMENTS_A_MESSAGE):
            members = nested(_LIST_ELEMENTS, *packed[start : start + _ELEMENTS_A_MESSAGE])
            requests.append((kind, flags, head + members))
    return requests


def _pack_element(element: Element) -> bytes:
    key = nested(_ELEMENT_KEY, attribute(_DATA_VALUE, element.key))
    value = nested(_ELEMENT_DATA, attribute(_DATA_VALUE, element.value)) if element.value else b""
    return nested(_LIST_ELEMENT, key, value)


def _head() -> bytes:
    return _nfgen.pack(_FAMILY_IPV4, 0, b"\0\0")
