"""The nouns of networks."""

from __future__ import annotations

from cloison.model.record import Record


class Network(Record):
    """A network that containers can be on."""

    name: str  # bridge, host, none
    driver: str
    subnet: str = ""  # "10.210.0.0/16"; "" when it has none, or does not stand yet
    gateway: str = ""
    link: str = ""  # the host's bridge
    addresses: tuple[tuple[str, str], ...] = ()  # (container id, address) of what is on it now
