"""Packets through the default network: from the host, from containers, from outside; and what must not pass."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from cloison.model.container import Attachment, PortMapping
from cloison.model.settings import Settings
from cloison.networks import bridge
from harness import Roots, until
from harness_networks import Space, ask, link_names, space


def http(host_port: int, *, address: str = "", protocol: str = "tcp", inside: int = 80) -> PortMapping:
    return PortMapping(container_port=inside, host_port=host_port, host_address=address, protocol=protocol)


def send_loopback_over_the_wire(attacker: Space, *, via: str, source: str) -> None:
    """Make a namespace treat 127.0.0.0/8 as a network behind another machine, and prove that packets leave it."""
    attacker.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    attacker.run("ip", "address", "delete", "127.0.0.1/8", "dev", "lo")
    attacker.run("ip", "route", "add", "127.0.0.0/8", "via", via, "src", source)
    assert f"via {via} dev eth0" in attacker.run("ip", "route", "get", "127.0.0.1")


def address_of_host() -> str:
    """An address of this machine that is not on its loopback."""
    route = subprocess.run(["ip", "-4", "route", "get", "192.0.2.255"], capture_output=True, text=True).stdout.split()
    return route[route.index("src") + 1] if "src" in route else ""


class Network:
    """Containers on the default network of one pair of roots."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self.settings, self._stack = settings, stack
        self._number = 0

    def join(self, *ports: PortMapping) -> tuple[Space, Attachment]:
        """A namespace, leased and connected; undone at the end of the test."""
        self._number += 1
        container_id = f"{self._number:012x}".ljust(64, "0")
        own = self._stack.enter_context(space())
        attachment = bridge.lease(self.settings, container_id=container_id, ports=ports)
        self._stack.callback(bridge.disconnect, self.settings, attachment, container_id=container_id, wait=True)
        bridge.connect(self.settings, attachment, namespace_socket=own.netlink)
        return own, attachment


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    roots = Roots()
    try:
        yield roots.settings
        bridge.remove_all(roots.settings)
        assert roots.settings.bridge not in link_names()
    finally:
        roots.remove()


@pytest.fixture
def network(settings: Settings) -> Iterator[Network]:
    with ExitStack() as stack:
        yield Network(settings, stack)


@pytest.fixture
def lan(network: Network) -> Iterator[Space]:
    """A machine on another network of this host: it is 198.51.100.2, the host is 198.51.100.1."""
    name = "lan" + network.settings.instance[-6:]
    with space() as machine:
        for line in (
            f"link add {name} type veth peer name eth0 netns {machine.pid}",
            f"address add 198.51.100.1/24 dev {name}",
            f"link set {name} up",
        ):
            subprocess.run(["ip", *line.split()], check=True)
        try:
            machine.run("ip", "address", "add", "198.51.100.2/24", "dev", "eth0")
            machine.run("ip", "link", "set", "eth0", "up")
            machine.run("ip", "route", "add", "default", "via", "198.51.100.1")
            yield machine
        finally:
            subprocess.run(["ip", "link", "delete", name], check=True)


def test_a_container_has_its_address_its_mac_and_a_default_route(network: Network) -> None:
    own, attachment = network.join()
    assert f"inet {attachment.address}/{attachment.prefix} " in own.run("ip", "address", "show", "eth0")
    assert attachment.mac in own.run("ip", "link", "show", "eth0")
    assert own.run("ip", "route").startswith(f"default via {attachment.gateway} dev eth0")
    assert "inet6" not in own.run("ip", "address", "show", "eth0"), "no IPv6 address of its own"
    assert len(attachment.host_link) <= 15


def test_the_host_reaches_a_container_by_its_address(network: Network) -> None:
    own, attachment = network.join()
    own.serve("tcp", 80)
    assert ask("tcp", attachment.address, port=80) == f"{attachment.gateway} 80"


def test_containers_reach_each_other(network: Network) -> None:
    (server, at), (client, from_) = network.join(), network.join()
    server.serve("tcp", 80)
    assert client.ask("tcp", at.address, port=80) == f"{from_.address} 80"


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_published_port_is_reached_from_the_host_by_every_local_address(network: Network, kind: str) -> None:
    own, attachment = network.join(http(18080, protocol=kind))
    own.serve(kind, 80)
    assert ask(kind, "127.0.0.1", port=18080) == f"{attachment.gateway} 80"
    assert ask(kind, "127.9.8.7", port=18080) == f"{attachment.gateway} 80"
    assert ask(kind, attachment.gateway, port=18080).endswith(" 80")
    if host := address_of_host():
        assert ask(kind, host, port=18080) == f"{host} 80", "the sender's address is kept"


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_published_port_is_reached_from_outside_with_the_senders_address(
    network: Network, lan: Space, kind: str
) -> None:
    own, _ = network.join(http(18080, protocol=kind))
    own.serve(kind, 80)
    assert lan.ask(kind, "198.51.100.1", port=18080) == "198.51.100.2 80"


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_published_port_is_reached_from_another_container_and_from_the_container_itself(
    network: Network, kind: str
) -> None:
    server, at = network.join(http(18080, protocol=kind))
    client, _ = network.join()
    server.serve(kind, 80)
    for host in filter(None, (at.gateway, address_of_host())):
        assert client.ask(kind, host, port=18080) == f"{at.gateway} 80"
        assert server.ask(kind, host, port=18080) == f"{at.gateway} 80"


def test_a_port_published_on_loopback_is_not_reached_from_outside(network: Network, lan: Space) -> None:
    own, attachment = network.join(http(18080, address="127.0.0.1"))
    own.serve("tcp", 80)
    assert ask("tcp", "127.0.0.1", port=18080) == f"{attachment.gateway} 80"
    assert lan.ask("tcp", "198.51.100.1", port=18080) == "!ConnectionRefusedError"
    # A neighbour that sends packets for 127.0.0.1 over the wire (CVE-2020-8558)
    send_loopback_over_the_wire(lan, via="198.51.100.1", source="198.51.100.2")
    assert lan.ask("tcp", "127.0.0.1", port=18080, timeout_s=1) == "!TimeoutError"


def test_a_port_published_on_one_address_is_reached_there_alone(network: Network, lan: Space) -> None:
    first, _ = network.join(http(18080, address="198.51.100.1"))
    second, at = network.join(http(18080, address="127.0.0.1"))
    first.serve("tcp", 80)
    second.serve("tcp", 80)
    assert lan.ask("tcp", "198.51.100.1", port=18080) == "198.51.100.2 80"
    assert ask("tcp", "127.0.0.1", port=18080) == f"{at.gateway} 80"
    assert ask("tcp", at.gateway, port=18080) == "!ConnectionRefusedError"


def test_nothing_but_published_ports_is_reached_from_outside(network: Network, lan: Space) -> None:
    own, attachment = network.join(http(18080))
    own.serve("tcp", 80, 81)
    assert lan.ask("tcp", attachment.address, port=81, timeout_s=1) == "!TimeoutError"
    assert lan.ask("tcp", attachment.address, port=80, timeout_s=1) == "!TimeoutError"
    assert lan.ask("tcp", "198.51.100.1", port=18080) == "198.51.100.2 80"


def test_a_container_reaches_the_outside_with_the_hosts_address(network: Network, lan: Space) -> None:
    own, _ = network.join()
    lan.serve("tcp", 80)
    assert own.ask("tcp", "198.51.100.2", port=80) == "198.51.100.1 80"


def test_a_container_never_reaches_the_hosts_loopback(network: Network) -> None:
    own, attachment = network.join(http(18080))  # a published port switches route_localnet on
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        listener.settimeout(1)
        port = listener.getsockname()[1]
        send_loopback_over_the_wire(own, via=attachment.gateway, source=attachment.address)
        assert own.ask("tcp", "127.0.0.1", port=port, timeout_s=1) == "!TimeoutError"
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_range_of_32_ports_is_published_at_once(network: Network) -> None:
    own, _ = network.join(*(http(18100 + n, inside=9000 + n) for n in range(32)))
    own.serve("tcp", *range(9000, 9032))
    answers = [ask("tcp", "127.0.0.1", port=18100 + n).split()[1] for n in (0, 1, 15, 31)]
    assert answers == ["9000", "9001", "9015", "9031"]


def test_udp_goes_to_the_new_container_although_the_sender_never_pauses(network: Network, settings: Settings) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(3)
        sender.connect(("127.0.0.1", 18080))
        for _ in range(2):
            with space() as own:
                container_id = "f" * 64
                sender.send(b"too early")
                attachment = bridge.lease(settings, container_id=container_id, ports=(http(18080, protocol="udp"),))
                try:
                    bridge.connect(settings, attachment, namespace_socket=own.netlink)
                    own.serve("udp", 80)
                    with pytest.raises(ConnectionRefusedError):  # the answer to "too early"
                        sender.recv(100)
                    sender.send(b"now")
                    assert sender.recv(100).decode().endswith(" 80")
                finally:
                    bridge.disconnect(settings, attachment, container_id=container_id, wait=True)


def test_after_disconnect_a_namespace_that_somebody_holds_is_cut_off(network: Network, settings: Settings) -> None:
    with space() as own:
        attachment = bridge.lease(settings, container_id="e" * 64, ports=(http(18080),))
        bridge.connect(settings, attachment, namespace_socket=own.netlink)
        own.serve("tcp", 80)
        assert ask("tcp", attachment.address, port=80).endswith(" 80")
        bridge.disconnect(settings, attachment, container_id="e" * 64)
        assert ask("tcp", attachment.address, port=80, timeout_s=1).startswith("!")
        assert ask("tcp", "127.0.0.1", port=18080) == "!ConnectionRefusedError"
    until(lambda: attachment.host_link not in link_names(), what="the end of the links")


def test_published_ports_work_again_after_somebody_flushed_the_ruleset(network: Network, settings: Settings) -> None:
    own, attachment = network.join(http(18080), http(18081, address="127.0.0.1"))
    own.serve("tcp", 80)
    subprocess.run(["nft", "delete", "table", "ip", settings.nft_table], check=True)
    assert ask("tcp", "127.0.0.1", port=18080) == "!ConnectionRefusedError"
    bridge.ensure_bridge(settings)
    assert ask("tcp", "127.0.0.1", port=18080) == f"{attachment.gateway} 80"
    assert ask("tcp", "127.0.0.1", port=18081) == f"{attachment.gateway} 80"


def test_containers_join_the_new_bridge_when_somebody_removed_the_old_one(network: Network, settings: Settings) -> None:
    own, attachment = network.join(http(18080))
    own.serve("tcp", 80)
    subprocess.run(["ip", "link", "delete", settings.bridge], check=True)
    bridge.ensure_bridge(settings)
    assert ask("tcp", attachment.address, port=80) == f"{attachment.gateway} 80"
