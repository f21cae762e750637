"""The netlink wire: what we send, how we read what comes back, and that refusals keep the kernel's own words."""

from __future__ import annotations

import errno
import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloison.errors import Conflict, Denied, Internal, NotFound, Unsupported
from cloison.linux import links, netlink
from cloison.linux.netlink import NetlinkError, NetlinkSocket


@given(st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=300)), max_size=20))
def test_attributes_come_back_as_they_were_packed(attributes: list[tuple[int, bytes]]) -> None:
    packed = b"".join(netlink.attribute(kind, payload) for kind, payload in attributes)
    assert len(packed) % 4 == 0
    assert netlink.iterate_attributes(packed) == attributes


@given(st.binary(max_size=64))
def test_damaged_attributes_raise_nothing_but_a_value_error(data: bytes) -> None:
    try:
        found = netlink.iterate_attributes(data)
    except ValueError:
        return
    assert sum(4 + len(payload) for _, payload in found) <= len(data)


def test_a_nested_attribute_carries_the_nested_flag_and_its_members() -> None:
    packed = netlink.nested(18, netlink.text(1, "veth"))
    assert packed == struct.pack("=HH", 16, 18 | 0x8000) + struct.pack("=HH", 9, 1) + b"veth\0\0\0\0"
    assert netlink.parse_attributes(packed) == {18: netlink.text(1, "veth")}


def test_a_veth_is_one_message_with_the_peer_inside_the_other_namespace() -> None:
    kind, flags, body = links.new_veth("clab", master=7, peer="eth0", peer_mac="02:c1:0a:d2:00:02", namespace_fd=9)
    assert (kind, flags) == (16, netlink.ACK | netlink.CREATE | netlink.EXCLUSIVE)
    fields = netlink.parse_attributes(body, 16)
    assert fields[3] == b"clab\0"
    assert fields[10] == struct.pack("=I", 7)
    info = netlink.parse_attributes(fields[18])
    peer = netlink.parse_attributes(netlink.parse_attributes(info[2])[1], 16)
    assert peer == {3: b"eth0\0", 1: bytes.fromhex("02c10ad20002"), 28: struct.pack("=I", 9)}


def test_an_address_carries_its_broadcast_address() -> None:
    _, _, body = links.add_address(3, "10.210.0.2", prefix=16)
    assert body[:8] == bytes([socket.AF_INET, 16, 0, 0]) + struct.pack("=I", 3)
    fields = netlink.parse_attributes(body, 8)
    assert fields == {1: bytes([10, 210, 0, 2]), 2: bytes([10, 210, 0, 2]), 4: bytes([10, 210, 255, 255])}


def test_an_address_without_its_connected_route_says_so() -> None:
    _, _, body = links.add_address(3, "10.210.0.1", prefix=16, connected_route=False)
    assert netlink.parse_attributes(body, 8)[8] == struct.pack("=I", 0x200)


def test_the_loopback_link_is_found_by_name_and_in_the_list() -> None:
    with NetlinkSocket() as route:
        link = links.find_link(route, "lo")
        assert link is not None
        assert (link.index, link.name, link.master) == (socket.if_nametoindex("lo"), "lo", 0)
        assert {one.name for one in links.list_links(route)} == {name for _, name in socket.if_nameindex()}
        assert links.find_link(route, "no-such-link") is None


def test_addresses_and_routes_of_this_machine_are_listed() -> None:
    with NetlinkSocket() as route:
        found = links.list_networks(route)
    assert links.Network(address="127.0.0.1", prefix=8, link=socket.if_nametoindex("lo")) in found
    assert all(network.prefix for network in found), "the default route covers everything and says nothing"


def test_a_refusal_names_the_object_and_keeps_errno_and_position() -> None:
    question = (18, netlink.ACK, bytes(16) + netlink.text(3, "lo"))
    with NetlinkSocket() as route:
        with pytest.raises(NetlinkError) as caught:
            route.transact([question, links.delete_link("no-such-link"), question])
        assert caught.value.errno in (errno.ENODEV, errno.EPERM)  # the latter without root
        assert caught.value.position == 1
        with pytest.raises((NotFound, Denied), match="cannot remove link no-such-link: "):
            links.apply(route, [links.delete_link("no-such-link")], what="cannot remove link no-such-link")


def test_a_tolerated_refusal_is_none() -> None:
    with NetlinkSocket() as route:
        tolerate = (errno.ENODEV, errno.EPERM)
        assert route.transact([links.delete_link("no-such-link")] * 3, tolerate=tolerate) == []


def test_the_kernels_own_words_are_the_reason() -> None:
    body = struct.pack("=i", -errno.EINVAL) + bytes(16) + netlink.text(1, "Nexthop has invalid gateway")
    refusal = netlink._parse_error(body, 0x100 | 0x200, position=2)
    assert refusal is not None
    assert (refusal.errno, refusal.strerror, refusal.position) == (errno.EINVAL, "Nexthop has invalid gateway", 2)


def test_words_are_found_behind_a_request_that_the_kernel_repeats() -> None:
    request = struct.pack("=IHHII", 23, 16, 5, 1, 0) + b"seven b\0"
    body = struct.pack("=i", -errno.EPERM) + request + netlink.text(1, "no")
    refusal = netlink._parse_error(body, 0x200, position=0)
    assert refusal is not None
    assert refusal.strerror == "no"


def test_an_error_of_zero_is_an_acknowledgement() -> None:
    assert netlink._parse_error(struct.pack("=i", 0) + bytes(16), 0x100, position=0) is None


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EPERM, Denied), (errno.EEXIST, Conflict), (errno.ENODEV, NotFound), (errno.EOPNOTSUPP, Unsupported),
        (errno.EINVAL, Internal),
    ],
)  # fmt: skip
def test_each_errno_has_its_type(number: int, kind: type[Exception]) -> None:
    error = netlink.refusal_error("cannot make link x", NetlinkError(number))
    assert type(error) is kind
    assert str(error) == f"cannot make link x: {os.strerror(number).lower()}"


def test_a_borrowed_socket_stays_open_and_an_own_one_does_not() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as lent:
        with NetlinkSocket(descriptor=lent.fileno()) as route:
            assert links.find_link(route, "lo") is not None
        assert lent.getsockname()
    before = os.listdir("/proc/self/fd")
    NetlinkSocket().close()
    assert os.listdir("/proc/self/fd") == before


def test_a_request_without_an_answer_is_an_error_and_does_not_hang() -> None:
    with NetlinkSocket(netlink.ROUTE) as route:
        # NLMSG_NOOP is not an object: the kernel acknowledges it, whereas a dump of it never ends in NLMSG_DONE
        with pytest.raises(NetlinkError):
            route.dump(1, b"")


@pytest.mark.parametrize("mac", ["", "02:c1:0a:d2:00", "02:c1:0a:d2:00:02:03", "xx:xx:xx:xx:xx:xx"])
def test_what_is_no_ethernet_address_is_refused(mac: str) -> None:
    with pytest.raises(ValueError):
        links.parse_mac(mac)
