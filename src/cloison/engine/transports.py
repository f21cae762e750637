"""Places of images, as skopeo spells them: ``docker:// oci: oci-archive: docker-archive: dir:``, and ``store:``."""

from __future__ import annotations

from contextlib import contextmanager

from cloison.errors import InvalidArgument
from cloison.images.progress import NoProgress
from cloison.model.record import Record
from cloison.model.reference import parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloison.images.copying import Source, Target
    from cloison.images.progress import Progress
    from cloison.images.reach import Reach
    from cloison.model.settings import Settings

TRANSPORTS = ("docker", "oci", "oci-archive", "docker-archive", "dir", "store")


class Place(Record):
    """``transport:path[:name]``; for docker and store ``path`` is "" and ``name`` the reference."""

    transport: str
    path: str = ""
    name: str = ""


def parse_place(text: str) -> Place:
    """Raises: InvalidArgument.  Source: containers-transports(5)."""
    transport, colon, rest = text.partition(":")
    if not colon or transport not in TRANSPORTS or (transport == "docker") != rest.startswith("//"):
        raise InvalidArgument(
            f"invalid image name {text!r}", why="expected transport:reference",
            hint=f"one of docker://NAME, store:NAME, {', '.join(f'{name}:PATH[:NAME]' for name in TRANSPORTS[1:5])}",
        )  # fmt: skip
    if transport in ("docker", "store"):
        return Place(transport=transport, name=rest.removeprefix("//"))
    if transport == "dir":
        return Place(transport=transport, path=_path(rest, text))
    path, _, name = rest.partition(":")
    return Place(transport=transport, path=_path(path, text), name=name)


def _path(path: str, text: str) -> str:
    if not path:
        raise InvalidArgument(f"invalid image name {text!r}", why="it names no path")
    return path.rstrip("/") or "/"


@contextmanager
def open_source(
    place: Place, *, settings: Settings, reach: Reach, progress: Progress | None = None
) -> Iterator[Source]:  # fmt: skip
    """What is there, to be read while the block lasts. Raises: NotFound, InvalidArgument."""
    news = progress or NoProgress()
    if place.transport == "docker":
        from cloison.images.copy_places import RegistrySource
        from cloison.images.mirrors import Mirrored

        reference = reach.candidates(place.name)[0]
        with Mirrored(reach.readers(reference), say=news.message) as client:
            yield RegistrySource(reference, client)
    elif place.transport == "store":
        from cloison.engine.garbage import open_store
        from cloison.engine.pushing import Pusher
        from cloison.images.copy_places import StoreSource
        from cloison.images.records import ImageStore
        from cloison.store.blobs import Blobs

        open_store(settings)
        store, blobs = ImageStore(settings.data_root), Blobs(settings.data_root)
        with store.incoming():  # nothing is collected meanwhile
            digest = Pusher(settings, store=store, blobs=blobs).digest_of(place.name)
            yield StoreSource(digest, blobs=blobs)
    elif place.transport in ("oci", "dir"):
        from cloison.images.copy_files import FlatSource, LayoutSource

        yield LayoutSource(place.path, tag=place.name) if place.transport == "oci" else FlatSource(place.path)
    else:
        from cloison.images.copy_archives import DockerArchiveSource, OciArchiveSource

        is_oci = place.transport == "oci-archive"
        archive = (
            OciArchiveSource(place.path, tag=place.name) if is_oci else DockerArchiveSource(place.path, name=place.name)
        )
        with archive:
            yield archive


@contextmanager
def open_target(place: Place, *, reach: Reach) -> Iterator[Target]:
    """Where to write while the block lasts; what is not whole at its end is gone. Raises: InvalidArgument, Denied."""
    if place.transport == "docker":
        from cloison.images.copy_places import RegistryTarget

        reference = parse_reference(place.name)
        with reach.writer(reference) as client:
            yield RegistryTarget(reference, client)
    elif place.transport in ("oci", "dir"):
        from cloison.images.copy_files import FlatTarget, LayoutTarget

        is_oci = place.transport == "oci"
        with LayoutTarget(place.path, tag=place.name) if is_oci else FlatTarget(place.path) as directory:
            yield directory
    elif place.transport == "store":
        raise InvalidArgument("cannot copy into the store", hint="cloison pull, or cloison load")
    else:
        from cloison.images.copy_archives import ArchiveTarget

        with ArchiveTarget(place.path, name=place.name, docker=place.transport == "docker-archive") as archive:
            yield archive
