"""Addresses and host ports: unique, refused where taken, as cheap for the thousandth as for the first."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.errors import Conflict, InvalidArgument, NotFound, Unavailable, Unsupported
from cloison.linux import nftables
from cloison.model.container import PortMapping
from cloison.model.settings import Settings
from cloison.networks import bridge, firewall, ipam, ports
from harness import Roots
from harness_networks import (
    child,
    free_port,
    identifier,
    leftovers,
    network_roots,
    outputs,
    publish,
)


@pytest.fixture
def own_roots() -> Iterator[Roots]:
    with network_roots() as own:
        yield own


@pytest.fixture
def settings(own_roots: Roots) -> Settings:
    return own_roots.settings


def test_addresses_leased_by_16_processes_at_once_are_unique(settings: Settings) -> None:
    bridge.ensure_bridge(settings)
    code = (
        "for n in range(10):\n"
        "    attachment = bridge.lease(settings, container_id=f'{sys.argv[1]}{n}')\n"
        "    print(attachment.address)\n"
    )
    children = [child(code, settings, f"{number:x}") for number in range(16)]
    addresses = " ".join(outputs(children)).split()
    assert len(addresses) == 160
    assert len(set(addresses)) == 160
    assert set(ipam.list_leases(settings)) == set(addresses)


def test_an_address_rests_before_it_is_leased_again(settings: Settings) -> None:
    seen = []
    for number in range(5):
        attachment = bridge.lease(settings, container_id=identifier(number))
        seen.append(attachment.address)
        bridge.disconnect(settings, attachment, container_id=identifier(number))
    assert len(set(seen)) == 5


def test_a_full_subnet_is_an_error_until_somebody_leaves(settings: Settings) -> None:
    small = settings.replace(subnet=settings.subnet.replace("/24", "/29"))
    held = [bridge.lease(small, container_id=identifier(number)) for number in range(5)]
    assert len({attachment.address for attachment in held}) == 5
    with pytest.raises(Unavailable, match="no address is left"):
        bridge.lease(small, container_id=identifier(6))
    bridge.disconnect(small, held[2], container_id=identifier(2))
    assert bridge.lease(small, container_id=identifier(7)).address == held[2].address


@pytest.mark.parametrize(
    ("first", "second"),
    [("", ""), ("", "127.0.0.1"), ("127.0.0.1", ""), ("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "")],
)
def test_a_port_that_a_container_has_is_refused_to_another(settings: Settings, first: str, second: str) -> None:
    port = free_port()
    held = bridge.lease(settings, container_id=identifier(1), ports=(publish(port, address=first),))
    message = f"Bind for {second or '0.0.0.0'}:{port} failed: port is already allocated"
    with pytest.raises(Conflict, match=message):
        bridge.lease(settings, container_id=identifier(2), ports=(publish(port, address=second),))
    assert list(ipam.list_leases(settings).values()) == [identifier(1)], "the refused one holds no address"
    bridge.disconnect(settings, held, container_id=identifier(1))
    assert leftovers(settings) == []
    bridge.lease(settings, container_id=identifier(2), ports=(publish(port, address=second),))


def test_the_same_number_may_be_published_for_tcp_and_udp_and_on_two_addresses(settings: Settings) -> None:
    port = free_port()
    bridge.lease(
        settings, container_id=identifier(1),
        ports=(publish(port, address="127.0.0.1"), publish(port, address="127.0.0.2"), publish(port, protocol="udp")),
    )  # fmt: skip
    assert len(ports.list_claims(settings)) == 3


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1"])
def test_a_port_that_a_program_of_the_host_has_is_refused(settings: Settings, kind: str, address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as program:
        program.bind((address, 0))
        if kind == "tcp":
            program.listen(1)
        port = program.getsockname()[1]
        with pytest.raises(Conflict, match="port is already allocated"):
            bridge.lease(settings, container_id=identifier(1), ports=(publish(port, protocol=kind),))
    assert leftovers(settings) == []


def test_when_one_port_of_several_is_taken_none_is_claimed(settings: Settings) -> None:
    bridge.lease(settings, container_id=identifier(1), ports=(publish(taken := free_port()),))
    with pytest.raises(Conflict):
        bridge.lease(settings, container_id=identifier(2), ports=(publish(0), publish(0), publish(taken)))
    assert [claim.container_id for claim in ports.list_claims(settings)] == [identifier(1)]


def test_a_port_of_zero_becomes_a_free_one(settings: Settings) -> None:
    chosen = [
        bridge.lease(settings, container_id=identifier(number), ports=(publish(0), publish(0, protocol="udp"))).ports
        for number in range(10)
    ]
    tcp = [pair[0].host_port for pair in chosen]
    assert len(set(tcp)) == 10
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert all(low <= port <= high for port in tcp)


def test_of_eight_processes_that_want_one_port_exactly_one_gets_it(settings: Settings) -> None:
    bridge.ensure_bridge(settings)
    code = (
        "address = ['', '127.0.0.1'][int(sys.argv[1]) % 2]\n"
        "mapping = PortMapping(container_port=80, host_port=int(sys.argv[2]), host_address=address)\n"
        "try: bridge.lease(settings, container_id=sys.argv[1], ports=(mapping,)); print('got it')\n"
        "except Exception as err: print(type(err).__name__)\n"
    )
    for _ in range(3):
        port = str(free_port())
        said = outputs([child(code, settings, str(number), port) for number in range(8)])
        assert sorted(said) == ["Conflict"] * 7 + ["got it"]


@pytest.mark.parametrize(
    ("port", "kind"),
    [
        (publish(1, address="203.0.113.77"), InvalidArgument),
        (publish(1, address="nonsense"), InvalidArgument),
        (publish(1, address="::1"), Unsupported),
        (publish(70000), InvalidArgument),
        (publish(1, protocol="icmp"), InvalidArgument),
        (PortMapping(container_port=0), InvalidArgument),
    ],
)
def test_a_port_that_makes_no_sense_is_refused(settings: Settings, port: PortMapping, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        bridge.lease(settings, container_id=identifier(1), ports=(port,))
    assert leftovers(settings) == []


def test_a_lease_costs_the_same_when_a_thousand_ports_are_published(settings: Settings) -> None:
    bridge.ensure_bridge(settings)

    def least_cpu_ms() -> float:
        times = []
        for number in range(15):
            started = time.process_time()
            attachment = bridge.lease(settings, container_id=identifier(number), ports=(publish(0),))
            times.append((time.process_time() - started) * 1000)
            bridge.disconnect(settings, attachment, container_id=identifier(number))
        return min(times)

    alone = least_cpu_ms()
    for number in range(100, 110):
        bridge.lease(settings, container_id=identifier(number), ports=tuple(publish(0) for _ in range(100)))
    assert least_cpu_ms() < 4 * alone + 2


def test_five_thousand_ports_are_published_and_withdrawn_in_one_transaction_each(settings: Settings) -> None:
    bridge.ensure_bridge(settings)
    mappings = [PortMapping(container_port=port, host_port=port) for port in range(10_000, 15_000)]
    firewall.publish(settings, address="10.209.0.9", ports=mappings)
    listed = nftables.list_elements(settings.nft_table, "ports")
    assert sorted(listed, key=lambda e: e.key) == firewall.plan_elements("10.209.0.9", mappings)
    firewall.withdraw(settings, address="10.209.0.9", ports=mappings)
    assert nftables.list_elements(settings.nft_table, "ports") == []


def test_a_key_that_leads_elsewhere_is_a_conflict_and_nothing_at_all_is_added(settings: Settings) -> None:
    bridge.ensure_bridge(settings)
    old, fresh, new = firewall.plan_elements("10.209.0.9", [publish(80), publish(81), publish(82)])
    nftables.add_elements(settings.nft_table, [old])
    nftables.add_elements(settings.nft_table, [old])
    other = old.replace(value=fresh.value[:4] + b"\x99\x99\0\0")
    with pytest.raises(Conflict, match="cannot add 3 elements to nft table"):
        nftables.add_elements(settings.nft_table, [fresh, other, new])
    assert nftables.list_elements(settings.nft_table, "ports") == [old]


def test_missing_elements_are_no_error_and_the_others_are_deleted(settings: Settings) -> None:
    bridge.ensure_bridge(settings)
    first, second, third = firewall.plan_elements("10.209.0.9", [publish(80), publish(81), publish(82)])
    nftables.add_elements(settings.nft_table, [first, third])
    nftables.delete_elements(settings.nft_table, [first, second, third])
    assert nftables.list_elements(settings.nft_table, "ports") == []
    nftables.delete_elements("no_such_table", [first])
    with pytest.raises(NotFound, match="no_such_table"):
        nftables.add_elements("no_such_table", [first])


def test_a_claim_takes_over_an_element_that_a_crash_left_behind(settings: Settings) -> None:
    bridge.ensure_bridge(settings)
    firewall.publish(settings, address="10.209.0.8", ports=[publish(80)])
    firewall.publish(settings, address="10.209.0.9", ports=[publish(80)])
    assert nftables.list_elements(settings.nft_table, "ports") == firewall.plan_elements("10.209.0.9", [publish(80)])
