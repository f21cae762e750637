"""Elements of nft maps as bytes, compared with what nft itself sends for the same words."""

from __future__ import annotations

from cloison.linux import nftables
from cloison.linux.nftables import Element, concatenate
from cloison.model.container import PortMapping
from cloison.networks import firewall


def test_fields_of_a_key_are_padded_to_registers() -> None:
    assert concatenate(b"\x06", b"\x1f\x90") == b"\x06\0\0\0\x1f\x90\0\0"
    assert concatenate(b"\x0a\xd2\0\2", b"\0P") == b"\x0a\xd2\0\2\0P\0\0"
    assert concatenate() == b""


def test_an_element_is_packed_as_nft_packs_it() -> None:
    # nft 1.0.6: add element ip t ports { tcp . 81 : 10.210.0.2 . 80 }, seen with strace
    sent = bytes.fromhex(
        "24000180" "10000180" "0c000100" "0600000000510000" "10000280" "0c000100" "0ad2000200500000"
    )  # fmt: skip
    mapping = PortMapping(container_port=80, host_port=81)
    (element,) = firewall.plan_elements("10.210.0.2", [mapping])
    assert nftables._pack_element(element) == sent


def test_what_is_bound_to_an_address_has_it_in_front_of_the_key() -> None:
    mapping = PortMapping(container_port=80, host_port=81, protocol="udp", host_address="127.0.0.1")
    (element,) = firewall.plan_elements("10.210.0.2", [mapping])
    assert element == Element(
        map="ports_at", key=b"\x7f\0\0\1" + b"\x11\0\0\0" + b"\0\x51\0\0", value=b"\x0a\xd2\0\2" + b"\0\x50\0\0"
    )


def test_an_explicit_wildcard_is_every_address() -> None:
    ports = [PortMapping(container_port=80, host_port=81, host_address=address) for address in ("", "0.0.0.0")]
    first, second = firewall.plan_elements("10.210.0.2", ports)
    assert first == second


def test_a_thousand_elements_share_a_message_and_one_more_opens_the_next() -> None:
    elements = [
        Element(map="ports", key=concatenate(b"\x06", n.to_bytes(2, "big")), value=bytes(8)) for n in range(1001)
    ]
    requests = nftables._element_requests(12, "t", elements=elements, flags=0)
    assert len(requests) == 2
    assert max(len(body) for _, _, body in requests) < 65536


def test_elements_of_two_maps_go_into_two_messages() -> None:
    elements = [Element(map=name, key=bytes(8), value=bytes(8)) for name in ("a", "b", "a")]
    assert len(nftables._element_requests(12, "t", elements=elements, flags=0)) == 2


def test_the_ruleset_names_the_table_the_bridge_and_the_subnet() -> None:
    text = firewall.render_ruleset("cloison", bridge="cloison0", subnet="10.210.0.0/16")
    assert text.startswith("table ip cloison\ndelete table ip cloison\ntable ip cloison {\n")
    assert 'oifname != "cloison0" ip saddr 10.210.0.0/16 masquerade' in text
    assert "{{" not in text and "}}" not in text
    assert text.count("{") == text.count("}")
