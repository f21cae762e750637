"""The files of containers and images: what changed, what is in them, as lists and as tar streams, without a mount."""

from __future__ import annotations

import os
from contextlib import contextmanager

from cloison.archive.changes import CONTENT, compare
from cloison.archive.layer_writer import write_tree
from cloison.archive.union import Union
from cloison.errors import Unavailable
from cloison.model.image import FileChange
from cloison.snapshots.drivers import open_snapshots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloison.archive.changes import Change
    from cloison.archive.writer import Writable
    from cloison.model.container import ContainerRecord
    from cloison.model.settings import Settings
    from cloison.snapshots.snapshotter import Snapshotter


def container_changes(record: ContainerRecord, *, settings: Settings) -> Sequence[FileChange]:
    """What a container's files are against its image's, by path. Raises: Unavailable, InvalidArgument."""
    with changed_tree(record, settings=settings) as (_tree, changes):
        return _render(changes)


@contextmanager
def changed_tree(record: ContainerRecord, *, settings: Settings) -> Iterator[tuple[Union, list[Change]]]:
    """A container's files, and how they differ from its image's; the root itself is no change of its own."""
    snapshots = open_snapshots(settings)
    with _open(snapshots.base_directories(record.layers), snapshots) as old:
        with _open(snapshots.directories_of(record.id, record.layers), snapshots) as new, _errors():
            changes = list(compare(old, new, by=snapshots.compare_by))
            yield new, [] if len(changes) == 1 and _is_root(changes[0]) else changes


def export_container(record: ContainerRecord, out: Writable, *, settings: Settings) -> None:
    """All files of a container as a tar stream; a running one goes on meanwhile. Raises: Unavailable, OSError."""
    snapshots = open_snapshots(settings)
    with _open(snapshots.directories_of(record.id, record.layers), snapshots) as tree, _errors():
        write_tree(tree, out, pad=True)


def image_changes(old: Sequence[str], new: Sequence[str], *, settings: Settings) -> Sequence[FileChange]:
    """What differs between two images, given by their layers, base first; times do not count, contents do."""
    snapshots = open_snapshots(settings)
    with _open(snapshots.layer_directories(old), snapshots) as before:
        with _open(snapshots.layer_directories(new), snapshots) as after, _errors():
            return _render(compare(before, after, by=CONTENT))


def layer_changes(layers: Sequence[str], *, settings: Settings) -> Sequence[FileChange]:
    """What the topmost of these layers added to, changed of and deleted from those below it."""
    snapshots = open_snapshots(settings)
    with _open(snapshots.layer_directories(layers), snapshots) as after:
        if len(layers) == 1:
            with _errors():
                return [FileChange(kind="A", path=f"/{os.fsdecode(path)}") for path in _paths(after)]
        with _open(snapshots.layer_directories(layers[:-1]), snapshots) as before, _errors():
            return _render(compare(before, after, by=snapshots.compare_by))


def _paths(tree: Union) -> Iterator[bytes]:
    waiting = [tree.root()]
    while waiting:
        children = tree.children(waiting.pop())
        waiting += [child for child in reversed(children) if child.is_directory]
        yield from (child.path for child in children)


def _render(changes: Iterator[Change] | Sequence[Change]) -> Sequence[FileChange]:
    rendered = []
    for old, new in changes:
        item = new or old
        if item is not None and item.path:
            kind = "C" if old and new else "A" if new else "D"
            rendered.append(FileChange(kind=kind, path=f"/{os.fsdecode(item.path)}"))
    return rendered


def _is_root(change: Change) -> bool:
    return change[1] is not None and not change[1].path


def _open(directories: Sequence[str], snapshots: Snapshotter) -> Union:
    with _errors():
        return Union(directories, hidden=snapshots.hidden)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise  # who reads what we write has gone
    except FileNotFoundError as err:
        raise Unavailable(
            "cannot read the files", why=f"{err.filename or 'a file'} is missing", hint="run 'cloison system check'"
        ) from err
    except OSError as err:
        raise Unavailable("cannot read the files", why=os.strerror(err.errno or 0).lower()) from err
