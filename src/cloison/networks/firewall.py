"""The one nft table: static chains, and two maps that hold what is published. O(1) for each container and each packet.

    ports      protocol . port            -> address . port      published on every address of the host
    ports_at   address . protocol . port  -> address . port      published on one address

What the chains promise:
  - a packet to a published port of this host goes to its container, from outside, from the host (127.0.0.1 too), from
    another container and from the container itself; the sender's address is kept wherever an answer finds its way;
  - what is published on 127.0.0.1 is reached from this host alone: packets from elsewhere are never translated for it;
  - from outside, nothing but published ports is reachable in a container; out of it, everything the host may reach;
  - a container cannot reach the host's 127.0.0.0/8, although route_localnet is on for the bridge.
Nothing here overrules a drop in another table: where a firewall of the host drops forwarded packets, it must let the
bridge's pass.
"""

from __future__ import annotations

from _socket import AF_INET, inet_pton

from cloison.errors import Conflict
from cloison.linux.nftables import Element, add_elements, concatenate, delete_elements, load_ruleset
from cloison.networks.ports import ANY, PROTOCOLS, list_claims

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.model.container import PortMapping
    from cloison.model.settings import Settings
    from cloison.networks.ports import Claim

_PORTS = "ports"
_PORTS_AT = "ports_at"

# "published" is entered from outside and from the host alike. Prerouting leaves the loopback network out: a packet from
# the host for it was translated in output; any other is a forgery. -100 is dstnat: nft 1.0 lacks the word in output.
_RULESET = """\
table ip {table}
delete table ip {table}
table ip {table} {{
	map ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
	map ports_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
	chain published {{
		dnat ip to ip daddr . meta l4proto . th dport map @ports_at
		dnat ip to meta l4proto . th dport map @ports
	}}
	chain guard {{
		type filter hook prerouting priority raw; policy accept;
		iifname "{bridge}" ip daddr 127.0.0.0/8 drop
	}}
	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr 127.0.0.0/8 return
		fib daddr type local jump published
	}}
	chain output {{
		type nat hook output priority -100; policy accept;
		fib daddr type local jump published
	}}
	chain forward {{
		type filter hook forward priority filter; policy accept;
		iifname "{bridge}" accept
		oifname "{bridge}" ct state established,related accept
		oifname "{bridge}" ct status dnat accept
		oifname "{bridge}" drop
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		oifname != "{bridge}" ip saddr {subnet} masquerade
		oifname "{bridge}" ip saddr 127.0.0.0/8 masquerade
		oifname "{bridge}" ip saddr {subnet} ct status dnat masquerade
	}}
}}
"""


def render_ruleset(table: str, *, bridge: str, subnet: str) -> str:
    """The whole table in nft's language; applied at once, it takes the place of one that is there."""
    return _RULESET.format(table=table, bridge=bridge, subnet=subnet)


def load_table(settings: Settings, *, bridge: str, subnet: str) -> None:
    """Make the table, with an element for every claim on disk: also after somebody flushed the host's ruleset."""
    load_ruleset(render_ruleset(settings.nft_table, bridge=bridge, subnet=subnet))
    claims = list_claims(settings)
    add_elements(settings.nft_table, [_plan_claim(claim) for claim in claims])
    # A container that left in between took its element away before we wrote it.
    gone = set(claims).difference(list_claims(settings))
    delete_elements(settings.nft_table, [_plan_claim(claim) for claim in gone])


def publish(settings: Settings, *, address: str, ports: Sequence[PortMapping]) -> None:
    """Write the map elements of one container. Raises: NotFound when the table is gone."""
    elements = plan_elements(address, ports)
    try:
        add_elements(settings.nft_table, elements)
    except Conflict:  # left by a container that lost its claims: who holds the claim owns the key
        delete_elements(settings.nft_table, elements)
        add_elements(settings.nft_table, elements)


def withdraw(settings: Settings, *, address: str, ports: Sequence[PortMapping]) -> None:
    """Take the map elements of one container away; missing ones, or a missing table, are fine."""
    delete_elements(settings.nft_table, plan_elements(address, ports))


def forget_flows_before(ports: Sequence[PortMapping]) -> None:
    """UDP flows to these host ports that began before they were published go on untranslated: forget them."""
    numbers = {port.host_port for port in ports if port.protocol == "udp"}
    if numbers:
        from cloison.linux.conntrack import forget_udp_flows  # few containers publish UDP

        forget_udp_flows(lambda port, _answers: port in numbers)


def forget_flows_to(address: str) -> None:
    """UDP flows that are translated to a container which is gone would never reach the next one: forget them."""
    from cloison.linux.conntrack import forget_udp_flows

    packed = inet_pton(AF_INET, address)
    forget_udp_flows(lambda _port, answers: answers == packed)


def plan_elements(address: str, ports: Sequence[PortMapping]) -> list[Element]:
    """One element for each published port."""
    return [
        plan_element(
            p.protocol, host_address=p.host_address, host_port=p.host_port, address=address, port=p.container_port
        )
        for p in ports
    ]


def plan_element(protocol: str, *, host_address: str, host_port: int, address: str, port: int) -> Element:
    """The map entry of one published port."""
    value = concatenate(inet_pton(AF_INET, address), port.to_bytes(2, "big"))
    key = concatenate(bytes([PROTOCOLS[protocol]]), host_port.to_bytes(2, "big"))
    if host_address in ("", ANY):
        return Element(map=_PORTS, key=key, value=value)
    return Element(map=_PORTS_AT, key=inet_pton(AF_INET, host_address) + key, value=value)


def _plan_claim(claim: Claim) -> Element:
    return plan_element(
        claim.protocol, host_address=claim.host_address, host_port=claim.host_port, address=claim.address,
        port=claim.container_port,
    )  # fmt: skip
