"""What ``-v``, ``--mount`` and ``--tmpfs`` mean on this host."""

from __future__ import annotations

import os

from cloison.errors import InvalidArgument, NotFound
from cloison.model.mount import Mount
from cloison.store.atomic import disk_error, make_private_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.model.container import MountRequest

_NAME_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME_REST = _NAME_FIRST | frozenset("_.-")


def check_name(name: str) -> None:
    """Raises: InvalidArgument, with the rule that Docker has for volume names."""
    if not name or len(name) > 255 or name[0] not in _NAME_FIRST or not _NAME_REST.issuperset(name):
        raise InvalidArgument(
            f"invalid volume name: {name!r}",
            why="only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            hint="if you intended to pass a host directory, use an absolute path",
        )


def resolve(request: MountRequest, *, data_root: str, container_id: str) -> Mount:
    """The mount that a request asks for; host directories and volumes are made where Docker would.

    Raises: InvalidArgument, NotFound (a bind source that must exist), Denied, Unavailable.
    """
    _check_target(request.target)
    if request.type == "tmpfs":
        return _tmpfs(request)
    if request.type == "bind":
        return _bind(request, _bind_source(request))
    name = request.source or anonymous_name(container_id, request.target)
    check_name(name)
    return _bind(request, _volume(data_root, name), "nosuid", "nodev")


def anonymous(target: str, *, data_root: str, container_id: str) -> Mount:
    """The volume that an image's VOLUME asks for; the path is the image's word, so it is normalised and checked."""
    path = os.path.normpath(f"/{target}")
    _check_target(path)
    name = anonymous_name(container_id, target)
    return Mount(
        type="bind",
        source=_volume(data_root, name),
        target=path,
        options=("rbind", "rprivate", "nosuid", "nodev", "rw"),
    )


def anonymous_name(container_id: str, target: str) -> str:
    """The name of an anonymous volume: stable for a container's life, unlike any other."""
    mix = 0xCBF29CE484222325
    for byte in f"{container_id}:{target}".encode():
        mix = ((mix ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{container_id[:48]}{mix:016x}"


def is_anonymous(name: str) -> bool:
    """Whether a volume's name looks like one of `anonymous_name`."""
    return len(name) == 64 and not name.strip("0123456789abcdef")


def list_names(data_root: str) -> list[str]:
    """All volumes there are."""
    try:
        return sorted(os.listdir(f"{data_root}/volumes"))
    except FileNotFoundError:
        return []


def anonymous_path(data_root: str, name: str) -> str:
    """The directory of a volume, for the engine to delete with the same care as a snapshot."""
    check_name(name)
    return f"{data_root}/volumes/{name}"


def _check_target(target: str) -> None:
    if not target.startswith("/") or "\0" in target:
        raise InvalidArgument(f"invalid mount path: {target!r}", why="mount path must be absolute")
    if os.path.normpath(target) == "/":
        raise InvalidArgument("invalid mount path: '/'", why="destination can't be '/'")


def _bind_source(request: MountRequest) -> str:
    source = request.source
    if not source.startswith("/"):
        raise InvalidArgument(f"invalid mount source: {source!r}", why="a bind source must be an absolute path")
    if os.path.exists(source):
        return source
    if not request.create_source:
        raise NotFound(
            'invalid mount config for type "bind"',
            why=f"bind source path does not exist: {source}",
            hint="make it first, or use -v, which makes a directory",
        )
    try:
        os.makedirs(source, mode=0o755, exist_ok=True)
    except OSError as err:
        raise disk_error(source, err) from err
    return source


def _volume(data_root: str, name: str) -> str:
    make_private_directory(f"{data_root}/volumes/{name}")
    path = f"{data_root}/volumes/{name}/_data"
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        pass
    except OSError as err:
        raise disk_error(path, err) from err
    return path


def _bind(request: MountRequest, source: str, *extra: str) -> Mount:
    words = ["rbind" if request.recursive else "bind", request.propagation or "rprivate", *extra]
    words.append(_access(request))
    return Mount(type="bind", source=source, target=os.path.normpath(request.target), options=tuple(words))


def _access(request: MountRequest) -> str:
    """Read-only means all of it: what is mounted below would be a hole in the wall (Docker does so since 25)."""
    if not request.read_only:
        return "rw"
    return "rro" if request.recursive and not request.writable_below else "ro"


def _tmpfs(request: MountRequest) -> Mount:
    words = ["nosuid", "nodev", "noexec"] if not request.options else ["nosuid", "nodev"]
    words += [word for word in request.options if word]
    if not any(word.startswith("nr_inodes=") for word in words):
        words.append("nr_inodes=1048576")  # pages alone do not bound what empty files cost the host
    if request.read_only:
        words.append("ro")
    return Mount(type="tmpfs", source="tmpfs", target=os.path.normpath(request.target), options=tuple(words))
