"""The downloading half of a pull, for tests of it alone: every blob in the store, nothing unpacked."""

from __future__ import annotations

from cloison.images.progress import NoProgress, Progress
from cloison.images.pull import Fetched, Pull
from cloison.model.reference import Reference
from cloison.model.settings import Settings
from cloison.registry.budget import Limits
from cloison.store.blobs import Blobs


def fetch(
    reference: Reference, *, blobs: Blobs, settings: Settings | None = None, platform: str = "",
    progress: Progress | None = None, limits: Limits | None = None,
) -> Fetched:  # fmt: skip
    pull = Pull(
        reference, blobs=blobs, settings=settings or Settings(), platform=platform, progress=progress or NoProgress(),
        limits=limits,
    )  # fmt: skip
    pull.begin()
    with pull:
        pull.layers.wait()
    return pull.fetched
