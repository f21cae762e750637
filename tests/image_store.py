"""Images in roots of their own, and a list of everything that their disk holds."""

from __future__ import annotations

import os
from pathlib import Path

from cloison.engine.images import Images
from cloison.model.settings import Settings, settings_for
from cloison.snapshots.overlay import Overlay
from cloison.store.blobs import Blobs
from harness import Roots


class Store:
    """Images of a data root of their own, and all that is on its disk."""

    def __init__(self, roots: Roots) -> None:
        self.settings: Settings = settings_for(roots.environ)
        self.images = Images(self.settings)
        self.snapshots = Overlay(roots.data_root)
        self.blobs = Blobs(roots.data_root)
        self.root = Path(roots.data_root)

    def content(self) -> dict[str, list[str]]:
        places = ("blobs/sha256", "blobs/incoming", "images/names", "images/records", "snapshots/overlay/layers",
                  "snapshots/overlay/incoming")  # fmt: skip
        return {place: sorted(os.listdir(self.root / place)) for place in places if (self.root / place).exists()}

    def is_empty(self) -> bool:
        return not any(self.content().values())

    def load(self, path: Path) -> list[str]:
        with open(path, "rb", buffering=0) as stream:
            return list(self.images.load(stream))

    def tree(self, name: str) -> Path:
        """The topmost layer of an image, as a directory."""
        return Path(self.snapshots.layer_path(self.images.find(name).layers[-1]))
