"""Leases, claims and the bridge itself: unique, refused where taken, undone after a crash, never in another's way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.errors import Conflict, Denied, InvalidArgument, Unavailable, Unsupported
from cloison.linux import nftables
from cloison.model.container import Attachment, PortMapping
from cloison.model.settings import Settings, settings_for
from cloison.networks import bridge, construction, ipam, ports
from harness import SOURCE, Roots, own_tables, until
from harness_networks import link_names, space

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def identifier(number: int) -> str:
    return f"{number:012x}".ljust(64, "0")


def publish(host_port: int, *, address: str = "", protocol: str = "tcp") -> PortMapping:
    return PortMapping(container_port=80, host_port=host_port, host_address=address, protocol=protocol)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module", autouse=True)
def forwarding() -> Iterator[None]:
    """The machine's switch is as it was when this module ends."""
    before = FORWARDING.read_text()
    yield
    if FORWARDING.read_text() != before:
        FORWARDING.write_text(before)


@pytest.fixture
def own_roots() -> Iterator[Roots]:
    own = Roots()
    try:
        yield own
        bridge.remove_all(own.settings)
    finally:
        own.remove()


@pytest.fixture
def settings(own_roots: Roots) -> Settings:
    return own_roots.settings


def leftovers(settings: Settings) -> list[str]:
    """Claims on disk, elements and ports of the bridge."""
    found = [f"lease {address}" for address in ipam.list_leases(settings)]
    found += [f"claim {claim.host_port}" for claim in ports.list_claims(settings)]
    if nftables.table_exists(settings.nft_table):
        for name in ("ports", "ports_at"):
            found += [f"element of {name}" for _ in nftables.list_elements(settings.nft_table, name)]
    members = Path(f"/sys/class/net/{settings.bridge}/brif")
    found += [f"link {name}" for name in (os.listdir(members) if members.exists() else ())]
    return found


ENVIRON = {**os.environ, "PYTHONPATH": str(SOURCE)}


def program(code: str, settings: Settings, *words: str) -> list[str]:
    """The command line of a process that uses the same roots; it has ``settings`` and the room's names."""
    head = (
        "import os, sys, signal\n"
        "from cloison.model.settings import Settings\n"
        "from cloison.model.container import PortMapping\n"
        "from cloison.networks import bridge, ipam, ports\n"
        f"settings = Settings(data_root={settings.data_root!r}, run_root={settings.run_root!r},"
        f" instance={settings.instance!r}, subnet={settings.subnet!r})\n"
    )
    return [sys.executable, "-c", head + code, *words]


def child(code: str, settings: Settings, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(program(code, settings, *words), stdout=subprocess.PIPE, text=True, env=ENVIRON)


def outputs(children: list[subprocess.Popen[str]]) -> list[str]:
    return [one.communicate(timeout=60)[0].strip() for one in children]


# --- the bridge -----------------------------------------------------------------------------------------------------


def test_the_bridge_is_built_once_and_found_afterwards(settings: Settings) -> None:
    first = bridge.ensure_bridge(settings)
    assert first.subnet == settings.subnet
    assert construction.find_bridge(settings) == first
    index = socket.if_nametoindex(settings.bridge)
    assert bridge.ensure_bridge(settings) == first
    assert socket.if_nametoindex(settings.bridge) == index
    assert Path(f"/proc/sys/net/ipv6/conf/{settings.bridge}/accept_ra").read_text() == "0\n"
    assert Path(f"/proc/sys/net/ipv6/conf/{settings.bridge}/disable_ipv6").read_text() == "1\n"
    assert Path(f"/proc/sys/net/ipv4/conf/{settings.bridge}/route_localnet").read_text() == "0\n"
    assert FORWARDING.read_text() == "1\n"


def test_eight_processes_that_need_the_bridge_at_once_build_one(settings: Settings) -> None:
    children = [child("print(bridge.ensure_bridge(settings))", settings) for _ in range(8)]
    assert len(set(outputs(children))) == 1
    assert all(one.returncode == 0 for one in children)


def test_two_engines_that_start_at_once_choose_different_subnets() -> None:
    pairs = [Roots() for _ in range(4)]
    engines = [settings_for({}, data_root=pair.data_root, run_root=pair.run_root) for pair in pairs]
    try:
        children = [child("print(bridge.ensure_bridge(settings).subnet)", engine) for engine in engines]
        chosen = outputs(children)
        assert len(set(chosen)) == 4
        assert set(chosen) <= set(construction.POOL)
    finally:
        for engine, pair in zip(engines, pairs, strict=True):
            bridge.remove_all(engine)
            pair.remove()


def test_a_chosen_subnet_is_remembered_over_a_reboot_unless_somebody_else_has_it_now(own_roots: Roots) -> None:
    engine = settings_for({}, data_root=own_roots.data_root, run_root=own_roots.run_root)
    first = bridge.ensure_bridge(engine)

    def reboot() -> None:
        subprocess.run(["ip", "link", "delete", engine.bridge], check=True)
        os.unlink(f"{engine.run_root}/networks/bridge.json")

    reboot()
    # the first of the pool is free again for others, yet ours is chosen: prove it with one further down
    choice = Path(f"{engine.data_root}/networks/bridge.json")
    later = "10.239.0.0/16"
    choice.write_text(choice.read_text().replace(first.subnet, later))
    assert bridge.ensure_bridge(engine).subnet == later
    reboot()
    name = "t" + engine.instance[-6:]
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "address", "add", "10.239.7.1/24", "dev", name], check=True)
        assert bridge.ensure_bridge(engine).subnet not in ("", later)
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)
        bridge.remove_all(engine)


def test_the_subnet_changes_when_no_container_has_an_address_and_not_before(settings: Settings) -> None:
    attachment = bridge.lease(settings, container_id=identifier(1))
    other = settings.replace(subnet=settings.subnet.replace("10.209.", "10.208."))
    with pytest.raises(Conflict, match="containers have addresses in it"):
        bridge.ensure_bridge(other)
    bridge.disconnect(settings, attachment, container_id=identifier(1))
    assert bridge.ensure_bridge(other).gateway.startswith("10.208.")
    addresses = subprocess.run(
        ["ip", "-4", "-o", "address", "show", settings.bridge], capture_output=True, text=True, check=True
    ).stdout
    assert addresses.count("inet ") == 1


@pytest.mark.parametrize("subnet", ["10.1.2.3", "10.1.2.3/24", "10.1.0.0/31", "10.1.0.0/7", "fd00::/64", "x/16"])
def test_a_subnet_that_makes_no_sense_is_refused_and_nothing_is_made(settings: Settings, subnet: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid subnet"):
        bridge.ensure_bridge(settings.replace(subnet=subnet))
    assert settings.bridge not in link_names()


def test_an_ordinary_user_is_told_that_rights_are_missing(own_roots: Roots) -> None:
    for path in (own_roots.run_root, own_roots.data_root):
        os.chown(path, 65534, 65534)
    code = (
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: bridge.ensure_bridge(settings)\n"
        "except Exception as err: print(type(err).__name__, '|', err, '|', err.hint)\n"
    )
    (said,) = outputs([child(code, own_roots.settings)])
    kind, what, hint = said.split(" | ")
    assert kind == Denied.__name__
    assert f"bridge {own_roots.settings.bridge}" in what
    assert hint == "run as root"


def test_removing_all_leaves_no_link_no_table_and_no_claim(settings: Settings) -> None:
    with space() as own:
        attachment = bridge.lease(settings, container_id=identifier(1), ports=(publish(0),))
        bridge.connect(settings, attachment, namespace_socket=own.netlink)
        bridge.remove_all(settings)
        assert settings.bridge not in link_names()
        assert attachment.host_link not in link_names()
    assert own_tables(settings) == []
    assert leftovers(settings) == []
    bridge.remove_all(settings)


# --- addresses ------------------------------------------------------------------------------------------------------


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


# --- ports ----------------------------------------------------------------------------------------------------------


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


# --- the end --------------------------------------------------------------------------------------------------------


def test_disconnecting_twice_takes_nothing_from_the_next_owner(settings: Settings) -> None:
    port = free_port()
    old = bridge.lease(settings, container_id=identifier(1), ports=(publish(port),))
    bridge.disconnect(settings, old, container_id=identifier(1))
    with space() as own:
        new = bridge.lease(settings, container_id=identifier(2), ports=(publish(port),))
        bridge.connect(settings, new, namespace_socket=own.netlink)
        bridge.disconnect(settings, old, container_id=identifier(1))
        assert len(nftables.list_elements(settings.nft_table, "ports")) == 1
        assert [claim.container_id for claim in ports.list_claims(settings)] == [identifier(2)]
        bridge.disconnect(settings, new, container_id=identifier(2), wait=True)
    assert leftovers(settings) == []


def test_a_container_connects_again_while_its_last_namespace_is_still_there(settings: Settings) -> None:
    with space() as last, space() as own:
        first = bridge.lease(settings, container_id=identifier(1))
        bridge.connect(settings, first, namespace_socket=last.netlink)
        bridge.disconnect(settings, first, container_id=identifier(1))
        second = bridge.lease(settings, container_id=identifier(1))
        bridge.connect(settings, second, namespace_socket=own.netlink)
        assert second.address in own.run("ip", "address", "show", "eth0")
        assert "eth0" not in last.run("ip", "link")
        bridge.disconnect(settings, second, container_id=identifier(1), wait=True)


def test_a_sweep_releases_what_the_dead_hold_and_nothing_else(settings: Settings) -> None:
    port = free_port()
    with space() as dead, space() as living:
        lost = bridge.lease(
            settings, container_id=identifier(1), ports=(publish(port), publish(0, address="127.0.0.1"))
        )
        bridge.connect(settings, lost, namespace_socket=dead.netlink)
        kept = bridge.lease(settings, container_id=identifier(2), ports=(publish(0),))
        bridge.connect(settings, kept, namespace_socket=living.netlink)
        assert bridge.sweep(settings, alive={identifier(2)}) == 1
        assert bridge.sweep(settings, alive={identifier(2)}) == 0
        assert sorted(leftovers(settings)) == sorted(
            [f"lease {kept.address}", f"claim {kept.ports[0].host_port}", "element of ports", f"link {kept.host_link}"]
        )
        bridge.disconnect(settings, kept, container_id=identifier(2), wait=True)


def test_a_sweep_asks_who_is_alive_after_it_has_read_the_leases(settings: Settings) -> None:
    bridge.lease(settings, container_id=identifier(1))
    started: list[Attachment] = []

    class LooksWhenAsked:
        def __contains__(self, container_id: object) -> bool:
            if not started:  # a container starts in the middle of the sweep
                started.append(bridge.lease(settings, container_id=identifier(2)))
            return container_id == identifier(2)

    assert bridge.sweep(settings, alive=LooksWhenAsked()) == 1
    assert list(ipam.list_leases(settings).values()) == [identifier(2)]


def test_one_engines_sweep_and_removal_leave_another_engine_alone(settings: Settings) -> None:
    pair = Roots()
    other = pair.settings
    try:
        with space() as own:
            kept = bridge.lease(other, container_id=identifier(1), ports=(publish(0),))
            bridge.connect(other, kept, namespace_socket=own.netlink)
            before = leftovers(other)
            bridge.lease(settings, container_id=identifier(2))
            assert bridge.sweep(settings, alive=set()) == 1
            bridge.remove_all(settings)
            assert leftovers(other) == before
            bridge.disconnect(other, kept, container_id=identifier(1), wait=True)
    finally:
        bridge.remove_all(other)
        pair.remove()


# Kills itself before the n-th change to disk or kernel: every place where a crash can leave something half done.
_KILLED = """
from cloison.linux.netlink import NetlinkSocket
left = int(sys.argv[1])
def counted(function):
    def call(*args, **keywords):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return function(*args, **keywords)
    return call
os.symlink, os.unlink = counted(os.symlink), counted(os.unlink)
NetlinkSocket.transact = counted(NetlinkSocket.transact)
mappings = (PortMapping(container_port=80), PortMapping(container_port=81, host_address="127.0.0.1"))
attachment = bridge.lease(settings, container_id="dead", ports=mappings)
bridge.connect(settings, attachment, namespace_socket=int(sys.argv[2]))
bridge.disconnect(settings, attachment, container_id="dead")
print("survived")
"""


def test_wherever_a_process_is_killed_a_sweep_leaves_nothing(settings: Settings) -> None:
    bridge.ensure_bridge(settings)
    steps = 0
    for steps in range(100):
        with space() as own:
            done = subprocess.run(
                program(_KILLED, settings, str(steps), str(own.netlink)), pass_fds=[own.netlink], capture_output=True,
                text=True, timeout=60, env=ENVIRON,
            )  # fmt: skip
            assert done.returncode in (0, -signal.SIGKILL), done.stderr
            bridge.sweep(settings, alive=set())
            found = [entry for entry in leftovers(settings) if not entry.startswith("link ") or done.returncode]
            assert found == [], f"killed before step {steps}"
        if done.stdout:
            break
    assert steps > 12, "that many changes there are at least"
    until(lambda: not leftovers(settings), what="the end of the last links")


def test_a_lease_costs_the_same_when_a_thousand_ports_are_published(settings: Settings) -> None:
    bridge.ensure_bridge(settings)

    def median_ms() -> float:
        times = []
        for number in range(9):
            started = time.perf_counter()
            attachment = bridge.lease(settings, container_id=identifier(number), ports=(publish(0),))
            times.append((time.perf_counter() - started) * 1000)
            bridge.disconnect(settings, attachment, container_id=identifier(number))
        return sorted(times)[4]

    alone = median_ms()
    for number in range(100, 110):
        bridge.lease(settings, container_id=identifier(number), ports=tuple(publish(0) for _ in range(100)))
    assert median_ms() < 4 * alone + 2
