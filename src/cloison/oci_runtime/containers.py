"""What is on disk: one directory a container below the state root.

``state.json`` (the record below), ``config.json`` (the bundle's, as it was at create: later changes have no effect),
``lock`` (held by whoever changes the container's state) and, until it is started, ``start`` (the socket on which its
first process waits) and ``report`` (where that tells what became of its command).
"""

from __future__ import annotations

import errno
import os

from cloison.errors import Conflict, InvalidArgument, NotFound
from cloison.linux import proc
from cloison.linux.cgroup_layout import read_layout
from cloison.linux.cgroup_processes import is_frozen
from cloison.model.record import Record, from_plain, to_plain
from cloison.store.atomic import disk_error, read_file, write_file
from cloison.store.json import dumps, loads
from cloison.store.locks import Lock, is_held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloison.linux.cgroup_layout import Layout

_ID_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
_ID_LENGTH = 1024
_REMOVALS = 10
_MAX_DOCUMENT = 64 << 20


class Container(Record):
    """A container of this runtime, as far as it has come."""

    id: str
    bundle: str
    rootfs: str
    oci_version: str
    created: str  # RFC 3339
    owner: str
    cgroup: str = ""  # below every hierarchy's root; "" is none of its own
    unit: str = ""  # the systemd unit whose group it is
    session: str = ""  # XDG_RUNTIME_DIR of the systemd that has the unit, where that is not PID 1
    rdt: tuple[str, ...] = ()  # directories of the resctrl file system that were made for it, the inner one first
    mounted_in: str = ""  # path of the mount namespace, somebody else's, that its root is mounted in
    mounted_inode: int = 0  # and its identity, for paths by pid come again
    mounted_depth: int = 0  # mounts that its root's path had there before
    pid: int = 0  # 0 until it is born
    pid_started: int = 0
    has_process: bool = True
    annotations: Mapping[str, str] = {}
    reads_config: tuple[str, ...] = ("start", "delete")  # the verbs for which its configuration holds work
    version: int = 1


def check_id(container_id: str) -> None:
    """Raises: InvalidArgument."""
    if not container_id or container_id[0] == "." or len(container_id) > _ID_LENGTH:
        # names with a dot in front are the runtime's own
        why = "it is too long" if len(container_id) > _ID_LENGTH else "invalid character '.' in front of container ID"
        raise InvalidArgument(f"invalid container ID format: {container_id[:64]!r}", why=why)
    strange = next((letter for letter in container_id if letter not in _ID_LETTERS), "")
    if strange:
        raise InvalidArgument(
            f"invalid container ID format: {container_id[:64]!r}", why=f"invalid character {strange!r} in container ID"
        )


class Containers:
    """Every container below one state root."""

    def __init__(self, root: str) -> None:
        self.root = root

    def path(self, container_id: str, *names: str) -> str:
        return "/".join((self.root, container_id, *names))

    def claim(self, container_id: str) -> Lock:
        """Make the container's directory and hold its lock. Raises: Conflict, InvalidArgument, Denied."""
        check_id(container_id)
        try:
            if not os.path.isdir(self.root):
                os.makedirs(self.root, 0o711, exist_ok=True)
            os.mkdir(self.path(container_id), 0o700)
        except FileExistsError as err:
            raise Conflict(f"container with given ID already exists: {container_id}") from err
        except OSError as err:
            if err.errno == errno.ENAMETOOLONG:
                raise InvalidArgument(
                    f"invalid container ID format: {container_id[:64]!r}", why="it is too long"
                ) from err
            raise disk_error(self.path(container_id), err) from err
        return Lock(self.path(container_id, "lock"))

    def lock(self, container_id: str) -> Lock:
        """Raises: NotFound."""
        check_id(container_id)
        try:
            return Lock(self.path(container_id, "lock"))
        except OSError as err:
            raise _missing(container_id) from err

    def save(self, container: Container) -> None:
        """By rename alone: the state root is on tmpfs."""
        write_file(self.path(container.id, "state.json"), dumps(to_plain(container)), durable=False)

    def load(self, container_id: str) -> Container:
        """Raises: NotFound."""
        check_id(container_id)
        try:
            return from_plain(Container, loads(read_file(self.path(container_id, "state.json"), limit=_MAX_DOCUMENT)))
        except OSError as err:
            raise _missing(container_id) from err

    def load_all(self) -> list[Container]:
        """Those that can be read, by name; what is being made or removed at this moment is left out."""
        found = []
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []
        for name in names:
            try:
                found.append(self.load(name))
            except (NotFound, InvalidArgument):
                continue
        return found

    def config(self, container_id: str) -> object:
        """The configuration as it was at create. Raises: NotFound."""
        try:
            return loads(read_file(self.path(container_id, "config.json"), limit=_MAX_DOCUMENT))
        except OSError as err:
            raise _missing(container_id) from err

    def remove(self, container_id: str) -> None:
        """Take the directory away, the record last: what is left after a crash can be removed again."""
        for name in os.listdir(self.path(container_id)):
            if name == "nodes":
                for left in os.listdir(self.path(container_id, name)):  # of a crash
                    os.unlink(self.path(container_id, name, left))
                os.rmdir(self.path(container_id, name))
            elif name not in ("lock", "state.json"):
                os.unlink(self.path(container_id, name))
        for _attempt in range(_REMOVALS):
            for name in ("state.json", "lock"):
                try:
                    os.unlink(self.path(container_id, name))
                except FileNotFoundError:
                    pass
            try:
                return os.rmdir(self.path(container_id))
            except OSError as err:
                if err.errno != errno.ENOTEMPTY:  # somebody has just asked for the lock
                    raise

    # -- what the kernel says

    def status(self, container: Container, *, layout: Layout | None = None) -> str:
        """creating, created, running, paused or stopped."""
        if not container.pid:
            return "creating" if is_held(self.path(container.id, "lock")) else "stopped"
        if not proc.is_alive(container.pid, container.pid_started):
            return "stopped"
        if container.cgroup and is_frozen(layout or read_layout(), container.cgroup):
            return "paused"
        return "created" if os.path.exists(self.path(container.id, "start")) else "running"


def state_document(container: Container, status: str) -> dict[str, object]:
    """The state that hooks get on their standard input (runtime.md, "State")."""
    document: dict[str, object] = {
        "ociVersion": container.oci_version, "id": container.id, "status": status, "bundle": container.bundle,
        "annotations": dict(container.annotations),
    }  # fmt: skip
    if status != "stopped":
        document["pid"] = container.pid  # "REQUIRED when status is created or running on Linux"
    return document


def _missing(container_id: str) -> NotFound:
    return NotFound(f"container {container_id} does not exist")
