"""The default bridge: built by the first container that needs it, looked at by every other one, self-healing.

Facts of the standing bridge are in ``<run root>/networks/bridge.json``; the subnet once chosen is kept in
``<data root>/networks/bridge.json``, so that addresses keep their meaning over a reboot.

Building sets net.ipv4.ip_forward to 1 for the whole host, as every engine with a bridge must; removal leaves it, for
others may have come to need it. IPv6 is off on our links until containers have addresses of it.
"""

from __future__ import annotations

import errno
import os

from cloison.errors import CloisonError, Conflict, Denied, NotFound, Unavailable
from cloison.linux import links
from cloison.linux.netlink import NetlinkSocket
from cloison.linux.nftables import table_exists
from cloison.model.record import Record, from_plain, to_plain
from cloison.networks.firewall import load_table
from cloison.networks.ipam import gateway_of, link_name, list_leases, mac_of, parse_subnet
from cloison.store import json
from cloison.store.atomic import make_private_directory, read_file, write_file
from cloison.store.locks import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.model.settings import Settings

POOL = tuple(f"10.{second}.0.0/16" for second in range(210, 240))
_IPV4_CONF = "/proc/sys/net/ipv4/conf"
_IPV6_CONF = "/proc/sys/net/ipv6/conf"
_FORWARDING = "/proc/sys/net/ipv4/ip_forward"


class Bridge(Record):
    """The default network of this engine as it stands."""

    name: str
    subnet: str  # "10.210.0.0/16"
    gateway: str  # the bridge's own address
    prefix: int
    version: int = 1


def ensure_bridge(settings: Settings) -> Bridge:
    """The bridge and its nft table, built if one of them is missing.

    When both stand this costs one small file and two netlink questions. Builders take turns by a lock.
    Raises: Conflict (the subnet is taken), Denied, Unsupported, Unavailable.
    """
    bridge = find_bridge(settings)
    if bridge is None:
        make_private_directory(f"{settings.run_root}/networks")
        with Lock(f"{settings.run_root}/networks/bridge.lock"):
            bridge = find_bridge(settings) or _build(settings)
    return bridge


def find_bridge(settings: Settings) -> Bridge | None:
    """The bridge when it stands as the settings want it, with its table; else None."""
    bridge = read_bridge(settings)
    if bridge is None or (settings.subnet and settings.subnet != bridge.subnet):
        return None
    with NetlinkSocket() as socket:
        link = links.find_link(socket, bridge.name)
    return bridge if link is not None and link.up and table_exists(settings.nft_table) else None


def read_bridge(settings: Settings) -> Bridge | None:
    """What the facts file says; the kernel may know better."""
    return _read(_facts(settings))


def allow_loopback(bridge: str) -> None:
    """Let the host's 127.0.0.1 reach published ports through the bridge.

    Only from the first published port on: the rule that keeps containers out of the host's 127.0.0.0/8 may be flushed.
    """
    _write_sysctl(f"{_IPV4_CONF}/{bridge}/route_localnet", "1")


def remove_bridge(settings: Settings) -> None:
    """The bridge and every port of it, and both files. Containers lose their network."""
    with NetlinkSocket() as socket:
        if link := links.find_link(socket, settings.bridge):
            doomed = [port.name for port in links.list_links(socket, master=link.index)]
            requests = [links.delete_link(name) for name in (*doomed, link.name)]
            links.apply(socket, requests, what=f"cannot remove bridge {link.name}", tolerate=(errno.ENODEV,))
    for path in (_facts(settings), _choice(settings)):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass


def _build(settings: Settings) -> Bridge:
    """Make what is missing; every step is harmless when it was done before."""
    if settings.subnet:
        parse_subnet(settings.subnet)
    standing = read_bridge(settings)
    if standing is not None and settings.subnet not in ("", standing.subnet):
        _remove_unused(settings, standing)
        standing = None
    with NetlinkSocket() as socket:
        index = _make_link(settings, socket)
        subnet = _settle(settings, socket, index=index, standing=standing)
        _adopt_ports(settings, socket, index=index)
    bridge = Bridge(name=settings.bridge, subnet=subnet, gateway=gateway_of(subnet), prefix=parse_subnet(subnet)[1])
    if not settings.subnet:
        _remember(settings, bridge)
    # The firewall stands before the first packet is forwarded.
    load_table(settings, bridge=bridge.name, subnet=bridge.subnet)
    _write_sysctl(_FORWARDING, "1")
    _write(_facts(settings), bridge, durable=False)
    return bridge


def _remove_unused(settings: Settings, standing: Bridge) -> None:
    """Make room for another subnet. Raises: Conflict while containers have addresses in this one."""
    if list_leases(settings):
        raise Conflict(
            f"cannot change the subnet of {standing.name} from {standing.subnet} to {settings.subnet}",
            why="containers have addresses in it", hint="stop them first",
        )  # fmt: skip
    remove_bridge(settings)


def _make_link(settings: Settings, socket: NetlinkSocket) -> int:
    """The bridge itself, up, without IPv6. Gives back its index."""
    name = settings.bridge
    links.apply(socket, [links.new_bridge(name)], what=f"cannot make bridge {name}", tolerate=(errno.EEXIST,))
    # A container that sends router advertisements must not give the host an address or a route (CVE-2020-13401).
    for key, value in (("accept_ra", "0"), ("disable_ipv6", "1")):
        _write_sysctl(f"{_IPV6_CONF}/{name}/{key}", value)
    links.apply(socket, [links.set_up(name)], what=f"cannot bring up bridge {name}")
    link = links.find_link(socket, name)
    if link is None:
        raise NotFound(f"bridge {name} is gone again", why="somebody removed it", hint="try again")
    return link.index


def _settle(settings: Settings, socket: NetlinkSocket, *, index: int, standing: Bridge | None) -> str:
    """Give the bridge its subnet: the one it has, the one that was asked for, the one from last time, or a free one."""
    known = settings.subnet or (standing.subnet if standing else "")
    candidates: tuple[str, ...] = (known,) if known else ()
    if not settings.subnet and not (standing and list_leases(settings)):
        candidates += _plan_candidates(settings, links.list_networks(socket), own=index)
    for subnet in candidates:
        if _claim_subnet(socket, subnet, index=index, name=settings.bridge):
            return subnet
    raise Conflict(
        f"cannot give bridge {settings.bridge} a subnet",
        why=f"{known or 'each of ' + POOL[0] + ' … ' + POOL[-1]} is in use on this host",
        hint="name a free one, for example CLOISON_SUBNET=10.99.0.0/16",
    )


def _adopt_ports(settings: Settings, socket: NetlinkSocket, *, index: int) -> None:
    """Containers that run while the bridge is built had one that somebody removed: they join the new one."""
    requests = [links.set_master(link_name(owner), master=index) for owner in list_leases(settings).values()]
    if requests:
        links.apply(socket, requests, what=f"cannot rebuild bridge {settings.bridge}", tolerate=(errno.ENODEV,))


def _plan_candidates(settings: Settings, taken: list[links.Network], *, own: int) -> tuple[str, ...]:
    """Subnets to try: that of last time first; none that another link's address or any route touches."""
    last = _read(_choice(settings))
    wanted = dict.fromkeys(([last.subnet] if last else []) + list(POOL))
    foreign = [network for network in taken if network.link != own]
    return tuple(subnet for subnet in wanted if not any(_overlap(subnet, network) for network in foreign))


def _overlap(subnet: str, other: links.Network) -> bool:
    network, prefix = parse_subnet(subnet)
    shift = 32 - min(prefix, other.prefix)
    return network >> shift == links.parse_ipv4(other.address) >> shift


def _claim_subnet(socket: NetlinkSocket, subnet: str, *, index: int, name: str) -> bool:
    """Address and route. The route is the claim: the kernel gives out one to a network, so no two engines share one."""
    network, prefix = subnet.split("/")
    gateway = gateway_of(subnet)
    for held in links.list_networks(socket):
        if held.link == index and held.address == network and held.prefix == int(prefix):
            return True
    what = f"cannot give bridge {name} the address {gateway}/{prefix}"
    # A bridge without an address of its own takes its ports' addresses, which come and go.
    address = links.add_address(index, gateway, prefix=int(prefix), connected_route=False)
    links.apply(socket, [links.set_mac(name, mac=mac_of(gateway)), address], what=what, tolerate=(errno.EEXIST,))
    try:
        links.apply(socket, [links.add_network_route(index, network, prefix=int(prefix), source=gateway)], what=what)
    except Conflict:
        links.apply(socket, [links.delete_address(index, gateway, prefix=int(prefix))], what=what)
        return False
    return True


def _remember(settings: Settings, bridge: Bridge) -> None:
    if _read(_choice(settings)) != bridge:
        make_private_directory(os.path.dirname(_choice(settings)))
        _write(_choice(settings), bridge, durable=True)


def _facts(settings: Settings) -> str:
    return f"{settings.run_root}/networks/bridge.json"


def _choice(settings: Settings) -> str:
    return f"{settings.data_root}/networks/bridge.json"


def _read(path: str) -> Bridge | None:
    """A damaged or newer file counts as none: the facts are in the kernel, and the choice can be made again."""
    try:
        plain = json.loads(read_file(path))
        return from_plain(Bridge, plain) if isinstance(plain, dict) else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _write(path: str, bridge: Bridge, *, durable: bool) -> None:
    write_file(path, json.dumps(to_plain(bridge)), durable=durable)


def _write_sysctl(path: str, value: str) -> None:
    """Set a kernel switch unless it is set. One of IPv6 may be missing: then there is nothing to switch off."""
    try:
        with open(path, "r+", encoding="ascii") as file:
            if file.read().strip() != value:
                file.seek(0)
                file.write(value)
    except FileNotFoundError:
        if not path.startswith(_IPV6_CONF):
            raise Unavailable(f"cannot set {path} to {value}", why="this kernel does not have it") from None
    except OSError as err:
        raise _sysctl_error(path, value, err=err) from err


def _sysctl_error(path: str, value: str, *, err: OSError) -> CloisonError:
    return Denied(
        f"cannot set {path} to {value}", why=os.strerror(err.errno or 0).lower(),
        hint="containers' network needs it; where /proc/sys is read-only set it outside, or use --network none or host",
    )  # fmt: skip
