"""What nobody uses goes: images by age, label or budget, stopped containers, volumes without a name."""

from __future__ import annotations

from cloison.engine import garbage
from cloison.engine.accounting import measure_images, volumes_of
from cloison.errors import Conflict, NotFound
from cloison.images.records import ImageStore
from cloison.linux.trees import usage_of
from cloison.model.record import Record
from cloison.model.units import parse_rfc3339_ns
from cloison.model.usage import Pruned
from cloison.snapshots.drivers import open_snapshots
from cloison.volumes import mounts as volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cloison.engine.containers import Containers
    from cloison.images.removal import Removal
    from cloison.model.image import Image, ImageListing
    from cloison.model.settings import Settings


class PruneFilter(Record):
    """Which of the unused things may go: those that pass every one of these."""

    until_ns: int = 0  # made before this moment; 0 is any time
    labels: tuple[str, ...] = ()  # "key" or "key=value", each of them there
    without_labels: tuple[str, ...] = ()  # none of them there

    def passes(self, labels: Mapping[str, str], created_ns: int) -> bool:
        """Whether something with these labels, made then, may go."""
        if self.until_ns and created_ns >= self.until_ns:
            return False
        return all(_has(labels, label) for label in self.labels) and not any(
            _has(labels, label) for label in self.without_labels
        )


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def prune_images(
    *, settings: Settings, all: bool, only: PruneFilter, keep_bytes: int = -1, spare: Collection[str] = ()
) -> Pruned:
    """Images without a name, or ``all`` that no container was made from; and all rests of crashes.

    With ``keep_bytes`` the longest unused go first, and only until the images take no more than that; ids in ``spare``
    stay.
    """
    garbage.open_store(settings)
    store = ImageStore(settings.data_root)
    removals: list[Removal] = []
    reclaimed = garbage.collect(settings, measure=True)
    excess = measure_images(settings) - keep_bytes if keep_bytes >= 0 else 1
    for listings in _by_last_use(store):
        image = listings[0].image
        may_go = (
            image.id not in spare
            and (all or not listings[0].reference)
            and only.passes(image.config.labels, _created_ns(image))
        )
        freed = 0
        if excess > 0 and may_go:
            freed = _remove(image.id, store, settings=settings, removals=removals)
        if freed and keep_bytes >= 0:
            freed += garbage.collect(settings, measure=True)
            excess -= freed
        reclaimed += freed
    reclaimed += garbage.collect(settings, measure=True) if removals else 0
    lines = garbage.removal_lines(removals, settings=settings)
    return Pruned(removed=tuple(line[0].lower() + line[1:] for line in lines), reclaimed_bytes=reclaimed)


def _remove(image_id: str, store: ImageStore, *, settings: Settings, removals: list[Removal]) -> int:
    """Bytes of its record and names; 0 when a container was made from it, running or not, or somebody was quicker."""
    with store.lock():
        if any(use.image_id == image_id for use in garbage.uses(settings)):
            return 0
        size = sum(map(usage_of, store.paths_of(image_id)))
        try:
            removals.append(store.remove(image_id, force=True))
        except NotFound:
            return 0
    return size


def _by_last_use(store: ImageStore) -> Sequence[Sequence[ImageListing]]:
    """Every image with its listings, the longest unused first."""
    images: dict[str, list[ImageListing]] = {}
    for listing in store.list():
        images.setdefault(listing.image.id, []).append(listing)
    return sorted(images.values(), key=lambda listings: store.last_used_ns(listings[0].image.id))


def _created_ns(image: Image) -> int:
    try:
        return parse_rfc3339_ns(image.created)
    except ValueError:
        return 0


def prune_containers(containers: Containers, *, settings: Settings, only: PruneFilter) -> Pruned:
    """Every container that does not run. Its anonymous volumes stay, as in docker."""
    snapshots = open_snapshots(settings)
    removed, reclaimed = [], 0
    for record in containers.list(all=True):
        if record.state.status in ("running", "paused") or not only.passes(record.labels, record.created_ns):
            continue
        size = usage_of(snapshots.home(record.id)) + usage_of(f"{settings.data_root}/containers/{record.id}")
        try:
            containers.remove(record.id)
        except (Conflict, NotFound):  # started, or removed, a moment ago
            continue
        removed.append(record.id)
        reclaimed += size
    return Pruned(removed=tuple(removed), reclaimed_bytes=reclaimed)


def prune_volumes(containers: Containers, *, settings: Settings) -> Pruned:
    """Volumes without a name of their own that no container has any more."""
    used = {name for record in containers.list(all=True) for name in volumes_of(record)}
    removed, reclaimed = [], 0
    for name in volumes.list_names(settings.data_root):
        if name in used or not volumes.is_anonymous(name):
            continue
        path = volumes.anonymous_path(settings.data_root, name)
        reclaimed += usage_of(path)
        open_snapshots(settings).remove_directory(path)
        removed.append(name)
    return Pruned(removed=tuple(removed), reclaimed_bytes=reclaimed)


def enforce_budget(settings: Settings, *, spare: Collection[str]) -> None:
    """Keep the images within the settings' budget, once those of ``spare`` have come in."""
    keep_bytes = settings.keep_storage_bytes
    prune_images(settings=settings, all=True, only=PruneFilter(), keep_bytes=keep_bytes, spare=spare)
