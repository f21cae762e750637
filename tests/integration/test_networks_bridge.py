"""The default bridge: built once, found afterwards, on a subnet that nobody else has."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.errors import Conflict, Denied, InvalidArgument
from cloison.model.settings import Settings, settings_for
from cloison.networks import bridge, construction
from harness import Roots, own_tables
from harness_networks import (
    FORWARDING,
    child,
    identifier,
    leftovers,
    link_names,
    network_roots,
    outputs,
    publish,
    space,
)


@pytest.fixture
def own_roots() -> Iterator[Roots]:
    with network_roots() as own:
        yield own


@pytest.fixture
def settings(own_roots: Roots) -> Settings:
    return own_roots.settings


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
