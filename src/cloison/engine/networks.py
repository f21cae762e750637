"""The use-cases of networks: the three that every engine has."""

from __future__ import annotations

from cloison.engine.roots import open_roots
from cloison.errors import NotFound
from cloison.model.network import Network
from cloison.networks.construction import read_bridge
from cloison.networks.ipam import list_leases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.model.settings import Settings


class Networks:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def list(self) -> list[Network]:
        """``bridge`` (built by the first container on it), ``host`` and ``none``, by name."""
        open_roots(self._settings)
        return [self._bridge(), Network(name="host", driver="host"), Network(name="none", driver="null")]

    def find(self, name: str) -> Network:
        """Raises: NotFound."""
        for network in self.list():
            if network.name == name:
                return network
        raise NotFound(f"network {name} not found")

    def _bridge(self) -> Network:
        bridge = read_bridge(self._settings)
        if bridge is None:
            return Network(name="bridge", driver="bridge")
        addresses = tuple(sorted((owner, address) for address, owner in list_leases(self._settings).items()))
        return Network(
            name="bridge",
            driver="bridge",
            subnet=bridge.subnet,
            gateway=bridge.gateway,
            link=bridge.name,
            addresses=addresses,
        )
