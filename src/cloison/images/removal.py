"""What it means to remove an image: the words of `rmi`, and who stands in its way."""

from __future__ import annotations

from cloison.errors import Conflict
from cloison.model.image import Image
from cloison.model.record import Record
from cloison.model.reference import Reference, parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class ImageUse(Record):
    """A container that was made from an image; the engine tells `remove` about them."""

    container_id: str
    image_id: str
    running: bool = False
    mounted: str = ""  # where `image mount` shows it; no container then


class Removal(Record):
    """What `remove` did, in Docker's order: names that are gone, then the image when that was the last of them."""

    untagged: tuple[str, ...] = ()
    deleted: Image | None = None


def same_names(reference: Reference, names: Sequence[Reference]) -> Sequence[Reference]:
    """Which of an image's names the user means; a digest stands for all names of that repository."""
    if not reference.digest:
        return [name for name in names if name == reference]
    same = [name for name in names if name.canonical_name == reference.canonical_name]
    return [name for name in same if name.digest == reference.digest] or same


def repository(repo_digest: str) -> str:
    return repo_digest.partition("@")[0]


def familiar(repo_digest: str) -> str:
    return parse_reference(repo_digest).familiar


def in_use(use: ImageUse, name: str) -> Conflict:
    container, image = use.container_id[:12], short(use.image_id)
    if use.mounted:
        return Conflict(
            f"unable to delete {image} (cannot be forced)", why=f"image is mounted at {use.mounted}",
            hint=f"cloison image unmount {image}",
        )  # fmt: skip
    if use.running:
        return Conflict(
            f"unable to delete {image} (cannot be forced)", why=f"image is being used by running container {container}"
        )
    if name:
        return Conflict(
            f'unable to remove repository reference "{name}" (must force)',
            why=f"container {container} is using its referenced image {image}",
        )
    return Conflict(
        f"unable to delete {image} (must be forced)", why=f"image is being used by stopped container {container}"
    )


def short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12]
