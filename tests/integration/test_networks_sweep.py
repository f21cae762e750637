"""The end of a container, orderly or not: nothing stays, and nothing of anybody else is touched."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator

import pytest

from cloison.linux import nftables
from cloison.model.container import Attachment
from cloison.model.settings import Settings, settings_for
from cloison.networks import bridge, construction, ipam, ports
from harness import Roots, until
from harness_networks import (
    ENVIRON,
    child,
    free_port,
    identifier,
    leftovers,
    network_roots,
    outputs,
    program,
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


_KILLED_BUILDER = """
from cloison.linux.netlink import NetlinkSocket
from cloison.networks import construction
left = int(sys.argv[1])
def counted(function):
    def call(*args, **keywords):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return function(*args, **keywords)
    return call
os.rename, construction.load_table = counted(os.rename), counted(construction.load_table)
NetlinkSocket.transact = counted(NetlinkSocket.transact)
bridge.ensure_bridge(settings)
print("survived")
"""


def test_wherever_a_builder_is_killed_the_next_one_builds_the_same_bridge(own_roots: Roots) -> None:
    engine = settings_for({}, data_root=own_roots.data_root, run_root=own_roots.run_root)
    steps = 0
    for steps in range(50):
        (said,) = outputs([child(_KILLED_BUILDER, engine, str(steps))])
        built = bridge.ensure_bridge(engine)
        assert construction.find_bridge(engine) == built
        assert built.subnet in construction.POOL
        routes = subprocess.run(
            ["ip", "route", "show", "dev", engine.bridge], capture_output=True, text=True, check=True
        )
        assert [line.split()[0] for line in routes.stdout.splitlines()] == [built.subnet]
        bridge.remove_all(engine)
        if said:
            break
    assert steps >= 8, "that many changes there are at least"
