"""Leases and claims on disk, and where subnets collide; nothing here touches a link or a table."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cloison.errors import Conflict, InvalidArgument
from cloison.linux.links import Network
from cloison.model.container import PortMapping
from cloison.model.settings import Settings
from cloison.networks import construction, ipam, ports

SUBNET = "10.210.0.0/24"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "run" / "networks").mkdir(parents=True)
    return Settings(data_root=str(tmp_path / "data"), run_root=str(tmp_path / "run"), instance="cloison-abcdef")


def test_the_first_container_gets_the_address_after_the_gateway(settings: Settings) -> None:
    assert ipam.gateway_of(SUBNET) == "10.210.0.1"
    assert ipam.lease_address(settings, "a", subnet=SUBNET) == "10.210.0.2"
    assert ipam.lease_address(settings, "b", subnet=SUBNET) == "10.210.0.3"
    assert ipam.list_leases(settings) == {"10.210.0.2": "a", "10.210.0.3": "b"}


def test_leases_wrap_around_at_the_broadcast_address(settings: Settings) -> None:
    small = "10.210.0.0/29"
    for name in "abcde":
        address = ipam.lease_address(settings, name, subnet=small)
    assert address == "10.210.0.6"
    ipam.release_address(settings, "c", address="10.210.0.4")
    assert ipam.lease_address(settings, "f", subnet=small) == "10.210.0.4"


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"999.1.1.1", b"192.168.7.9"])
def test_a_damaged_hint_of_the_last_address_does_no_harm(settings: Settings, damage: bytes) -> None:
    Path(settings.run_root, "networks", "last-address").write_bytes(damage)
    assert ipam.lease_address(settings, "a", subnet=SUBNET).startswith("10.210.0.")


def test_an_address_is_released_by_its_holder_alone(settings: Settings) -> None:
    address = ipam.lease_address(settings, "a", subnet=SUBNET)
    ipam.release_address(settings, "b", address=address)
    assert ipam.list_leases(settings) == {address: "a"}
    ipam.release_address(settings, "a", address=address)
    ipam.release_address(settings, "a", address=address)
    assert ipam.list_leases(settings) == {}


def test_the_mac_follows_from_the_address_and_is_locally_administered() -> None:
    assert ipam.mac_of("10.210.0.2") == "02:c1:0a:d2:00:02"


def test_a_link_name_fits_into_the_kernels_15_bytes() -> None:
    assert len(ipam.link_name(os.urandom(32).hex())) <= 15


@pytest.mark.parametrize(
    ("subnet", "other", "collides"),
    [
        ("10.210.0.0/16", ("10.210.7.0", 24), True),
        ("10.210.0.0/16", ("10.0.0.0", 8), True),
        ("10.210.0.0/16", ("10.210.255.255", 32), True),
        ("10.210.0.0/16", ("10.211.0.0", 16), False),
        ("10.210.0.0/16", ("10.208.0.0", 15), False),
        ("10.210.0.0/16", ("10.210.0.0", 15), True),
    ],
)
def test_a_subnet_collides_with_what_lies_in_it_or_around_it(
    subnet: str, other: tuple[str, int], collides: bool
) -> None:
    assert construction._overlap(subnet, Network(address=other[0], prefix=other[1])) is collides


def test_what_the_bridge_itself_has_is_no_collision(settings: Settings) -> None:
    taken = [Network(address="10.210.0.0", prefix=16, link=5), Network(address="10.211.0.1", prefix=16, link=6)]
    assert construction._plan_candidates(settings, taken, own=5)[:2] == ("10.210.0.0/16", "10.212.0.0/16")


def test_a_damaged_facts_file_counts_as_none(settings: Settings) -> None:
    for text in ("", "{", '{"name": 1}', "[]", '{"surprise": true}'):
        Path(settings.run_root, "networks", "bridge.json").write_text(text)
        assert construction.read_bridge(settings) is None


def test_claims_can_be_read_back_in_full(settings: Settings) -> None:
    wanted = (
        PortMapping(container_port=80),
        PortMapping(container_port=53, protocol="udp", host_address="127.0.0.1"),
    )
    chosen = ports.claim_ports(settings, "a", address="10.210.0.2", ports=wanted)
    assert all(port.host_port for port in chosen)
    found = {(c.protocol, c.host_address, c.host_port, c.container_id, c.address, c.container_port)
             for c in ports.list_claims(settings)}  # fmt: skip
    assert found == {
        ("tcp", "0.0.0.0", chosen[0].host_port, "a", "10.210.0.2", 80),
        ("udp", "127.0.0.1", chosen[1].host_port, "a", "10.210.0.2", 53),
    }
    ports.release_ports(settings, "b", ports=chosen)
    assert len(ports.list_claims(settings)) == 2, "another container's release takes nothing away"
    ports.release_ports(settings, "a", ports=chosen)
    assert os.listdir(f"{settings.run_root}/ports") == []


def test_a_claimed_port_is_refused_with_dockers_words(settings: Settings) -> None:
    (held,) = ports.claim_ports(settings, "a", address="10.210.0.2", ports=[PortMapping(container_port=80)])
    with pytest.raises(Conflict) as caught:
        ports.claim_ports(settings, "b", address="10.210.0.3", ports=[held])
    assert str(caught.value) == f"Bind for 0.0.0.0:{held.host_port} failed: port is already allocated"
    with pytest.raises(Conflict):
        ports.claim_ports(settings, "a", address="10.210.0.2", ports=[held])


def test_no_socket_stays_open_after_a_claim(settings: Settings) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    (held,) = ports.claim_ports(settings, "a", address="10.210.0.2", ports=[PortMapping(container_port=80)])
    assert sorted(os.listdir("/proc/self/fd")) == before
    with socket.socket() as anyone:
        anyone.bind(("127.0.0.1", held.host_port))


@pytest.mark.parametrize(
    "subnet", ["", "10.210.0.0", "10.210.0.0/", "10.210.0.0/31", "10.210.0.1/16", "10.210/16", "::/16"]
)
def test_what_is_no_subnet_is_refused(subnet: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid subnet"):
        ipam.parse_subnet(subnet)


def test_the_room_loads_none_of_the_expensive_modules() -> None:
    import subprocess
    import sys

    code = "import sys; import cloison.networks.bridge, cloison.networks.names; print(*sorted(sys.modules))"
    source = Path(construction.__file__).parents[2]
    loaded = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(source)!r}); {code}"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    expensive = {
        "re",
        "enum",
        "typing",
        "socket",
        "json",
        "subprocess",
        "logging",
        "pathlib",
        "contextlib",
        "ipaddress",
    }
    assert expensive.isdisjoint(loaded)
