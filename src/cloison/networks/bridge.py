"""The default network, from lease to disconnect; the front of this room.

    lease       files only: an address, host ports. The intention is on disk before any kernel object exists
    connect     the kernel: a pair of links, addresses, map elements
    disconnect  all of it undone; every step finds its work done already without complaint
    sweep       the same for containers that are gone without a word

No namespace has a name here: the launcher made it with the container and sent a netlink socket from inside. With its
last process it dies, and the kernel takes the pair of links along.
"""

from __future__ import annotations

import errno
import os

from cloison.errors import Conflict, NotFound
from cloison.linux import links
from cloison.linux.netlink import NetlinkSocket, namespace_of, refusal_error
from cloison.linux.nftables import delete_table
from cloison.model.container import Attachment, PortMapping
from cloison.networks import firewall, ipam
from cloison.networks import ports as host_ports
from cloison.networks.construction import Bridge, allow_loopback, ensure_bridge, remove_bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from cloison.linux.netlink import Request
    from cloison.model.settings import Settings

__all__ = ["Bridge", "connect", "disconnect", "ensure_bridge", "lease", "remove_all", "sweep"]

_INSIDE = "eth0"
_NETWORK = "bridge"


def lease(settings: Settings, *, container_id: str, ports: tuple[PortMapping, ...] = ()) -> Attachment:
    """Reserve an address and host ports; nothing is left when this fails.

    Raises: Conflict (a port is taken), InvalidArgument, Unavailable (no address or port is left), and what
    `ensure_bridge` raises.
    """
    bridge = ensure_bridge(settings)
    # The address comes first and goes last: whoever has no address holds nothing, and a sweep looks at addresses alone.
    address = ipam.lease_address(settings, container_id, subnet=bridge.subnet)
    try:
        chosen = host_ports.claim_ports(settings, container_id, address=address, ports=ports)
    except BaseException:
        ipam.release_address(settings, container_id, address=address)
        raise
    return Attachment(
        network=_NETWORK, address=address, prefix=bridge.prefix, gateway=bridge.gateway, mac=ipam.mac_of(address),
        host_link=ipam.link_name(container_id), ports=chosen,
    )  # fmt: skip


def connect(settings: Settings, attachment: Attachment, *, namespace_socket: int) -> None:
    """Carry out a lease for the namespace in which this netlink socket was opened; the socket stays the caller's.

    Raises: CloisonError; `disconnect` undoes what was done until then.
    """
    try:
        namespace_fd = namespace_of(namespace_socket)
    except OSError as err:
        raise refusal_error("cannot find the container's network namespace", err) from err
    try:
        _make_pair(settings, attachment, namespace_fd=namespace_fd)
    finally:
        os.close(namespace_fd)
    _configure_inside(attachment, namespace_socket=namespace_socket)
    if attachment.ports:
        _publish(settings, attachment)


def disconnect(settings: Settings, attachment: Attachment, *, container_id: str, wait: bool = False) -> None:
    """Undo `connect` and `lease`, whatever of them was done; a second time changes nothing.

    The container's links die with its namespace. Should somebody hold that (``nsenter``, a container that shares it),
    the host's end is down from now on; ``wait=True`` removes the links here and now, which takes tens of milliseconds.
    """
    own = tuple(port for port in attachment.ports if _holds(settings, port, container_id=container_id))
    firewall.withdraw(settings, address=attachment.address, ports=own)
    _drop_link(attachment.host_link, wait=wait)
    if any(port.protocol == "udp" for port in own):
        firewall.forget_flows_to(attachment.address)
    host_ports.release_ports(settings, container_id, ports=own)
    ipam.release_address(settings, container_id, address=attachment.address)


def sweep(settings: Settings, *, alive: Container[str]) -> int:
    """Release all that containers hold which are not alive; how many there were.

    ``alive`` is asked with ``in`` after the leases were read: an object that looks when it is asked is never fooled by
    a container that starts meanwhile; a set may be.
    """
    host_ports.sweep_directories(settings)
    dead: dict[str, list[str]] = {}
    for address, owner in ipam.list_leases(settings).items():
        if owner not in alive:
            dead.setdefault(owner, []).append(address)
    if not dead:
        return 0
    held: dict[str, list[PortMapping]] = {}
    for claim in host_ports.list_claims(settings):
        port = PortMapping(
            container_port=claim.container_port, protocol=claim.protocol, host_address=claim.host_address,
            host_port=claim.host_port,
        )  # fmt: skip
        held.setdefault(claim.container_id, []).append(port)
    for owner, addresses in dead.items():
        for address in addresses:
            attachment = Attachment(
                network=_NETWORK, address=address, host_link=ipam.link_name(owner), ports=tuple(held.get(owner, ()))
            )
            disconnect(settings, attachment, container_id=owner, wait=True)
    return len(dead)


def remove_all(settings: Settings) -> None:
    """The table, the bridge with all its ports, every lease and claim (``system reset``, tests)."""
    delete_table(settings.nft_table)
    remove_bridge(settings)
    for claim in host_ports.list_claims(settings):
        port = PortMapping(
            container_port=claim.container_port, protocol=claim.protocol, host_address=claim.host_address,
            host_port=claim.host_port,
        )  # fmt: skip
        host_ports.release_ports(settings, claim.container_id, ports=(port,))
    for address, owner in ipam.list_leases(settings).items():
        ipam.release_address(settings, owner, address=address)


def _make_pair(settings: Settings, attachment: Attachment, *, namespace_fd: int) -> None:
    what = f"cannot make link {attachment.host_link}"
    with NetlinkSocket() as socket:
        requests = _plan_pair(settings, attachment, socket=socket, namespace_fd=namespace_fd)
        try:
            links.apply(socket, requests, what=what, tolerate=(errno.EAFNOSUPPORT,))
        except Conflict:
            # The container was restarted, and the kernel has not yet cleared away its last namespace.
            stale = [links.delete_link(attachment.host_link)]
            links.apply(socket, stale, what=what, tolerate=(errno.ENODEV,))
            links.apply(socket, requests, what=what, tolerate=(errno.EAFNOSUPPORT,))


def _plan_pair(
    settings: Settings, attachment: Attachment, *, socket: NetlinkSocket, namespace_fd: int
) -> tuple[Request, ...]:
    bridge = links.find_link(socket, settings.bridge)
    if bridge is None:
        ensure_bridge(settings)
        bridge = links.find_link(socket, settings.bridge)
    if bridge is None:
        raise NotFound(f"bridge {settings.bridge} is gone", why="somebody removed it", hint="try again")
    name = attachment.host_link
    pair = links.new_veth(name, master=bridge.index, peer=_INSIDE, peer_mac=attachment.mac, namespace_fd=namespace_fd)
    reflect = (links.reflect_port(name),) if attachment.ports else ()
    return pair, links.no_link_local(name), *reflect, links.set_up(name)


def _configure_inside(attachment: Attachment, *, namespace_socket: int) -> None:
    what = f"cannot configure {_INSIDE} with {attachment.address}/{attachment.prefix}"
    with NetlinkSocket(descriptor=namespace_socket) as socket:
        link = links.find_link(socket, _INSIDE)
        if link is None:
            raise NotFound(what, why="the link is gone: the container's namespace ended")
        requests = (
            links.no_link_local(_INSIDE), links.set_up(_INSIDE),
            links.add_address(link.index, attachment.address, prefix=attachment.prefix),
            links.add_default_route(link.index, attachment.gateway),
        )  # fmt: skip
        links.apply(socket, requests, what=what, tolerate=(errno.EAFNOSUPPORT,))


def _publish(settings: Settings, attachment: Attachment) -> None:
    allow_loopback(settings.bridge)
    try:
        firewall.publish(settings, address=attachment.address, ports=attachment.ports)
    except NotFound:  # somebody flushed the host's ruleset since the lease
        ensure_bridge(settings)
        firewall.publish(settings, address=attachment.address, ports=attachment.ports)
    firewall.forget_flows_before(attachment.ports)


def _holds(settings: Settings, port: PortMapping, *, container_id: str) -> bool:
    claim = host_ports.read_claim(
        settings, protocol=port.protocol, host_address=port.host_address, host_port=port.host_port
    )
    return claim is not None and claim.container_id == container_id


def _drop_link(name: str, *, wait: bool) -> None:
    """Take the host's end down (0.3 ms), or remove it (tens of milliseconds: RCU grace periods)."""
    request = links.delete_link(name) if wait else links.set_up(name, up=False)
    with NetlinkSocket() as socket:
        links.apply(socket, [request], what=f"cannot take down link {name}", tolerate=(errno.ENODEV,))
