"""The engine: one object that doors and programs hold; it opens the room that is asked for, no more."""

from __future__ import annotations

import os

from cloison.model.settings import Settings, settings_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.engine.containers import Containers
    from cloison.engine.images import Images
    from cloison.engine.manifests import Manifests
    from cloison.engine.networks import Networks
    from cloison.engine.registries import Registries
    from cloison.engine.system import System


class Engine:
    """Containers, images, networks and the system of one pair of roots. Thread-safe: nothing in it ever changes."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Touches nothing yet: the roots are made by the first use-case that needs them.

        Without settings, those of the environment, as the command has them: roots, registries, credentials.
        """
        self.settings = settings or settings_for(dict(os.environ))

    @property
    def containers(self) -> Containers:
        from cloison.engine.containers import Containers

        return Containers(self.settings)

    @property
    def images(self) -> Images:
        from cloison.engine.images import Images

        return Images(self.settings)

    @property
    def networks(self) -> Networks:
        from cloison.engine.networks import Networks

        return Networks(self.settings)

    @property
    def manifests(self) -> Manifests:
        from cloison.engine.manifests import Manifests

        return Manifests(self.settings)

    @property
    def registries(self) -> Registries:
        from cloison.engine.registries import Registries

        return Registries(self.settings)

    @property
    def system(self) -> System:
        from cloison.engine.system import System

        return System(self.settings)
