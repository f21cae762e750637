"""Containers on disk: one directory each, names claimed by symlink, and the marks that tell the living from the dead.

    <home>/<id>/record.json     what was asked and resolved; the home is the run root for --rm, else the data root
    <home>/<id>/state.json      how it ended (kept containers)
    <home>/<id>/log[.N]         framed output
    <data root>/names/<name>    symlink whose text is the id: exclusive and whole in one system call
    <run root>/containers/<id>/ the *intention*: made before any kernel object, removed after the last one
        op.lock                 held by whoever creates, starts or cleans up
        monitor.lock            held by the monitor: free means the container does not run
        run.json                pid, start time, leases; what `stop` and `exec` need
        socket exit hosts hostname resolv.conf

A run directory with both locks free is finished or crashed work: whoever sees it cleans up.
"""

from __future__ import annotations

import errno
import os
import time

from cloison.errors import Conflict, Internal, NotFound
from cloison.model.container import Attachment, ContainerRecord, ContainerState
from cloison.model.record import Record, from_plain, to_plain
from cloison.store import json
from cloison.store.atomic import disk_error, make_private_directory, read_file, sync_directory, write_file
from cloison.store.locks import Lock, is_held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, ClassVar

    from cloison.model.settings import Settings


class Running(Record):
    """What the host must know of a container between its start and its clean-up (``run.json``)."""

    pid: int = 0  # of its init, in our pid namespace; 0 while it is being made
    pid_started: int = 0  # clock ticks, so that a recycled pid is not ours
    cgroup: str = ""
    attachment: Attachment | None = None
    started_ns: int = 0
    reason: str = ""  # set by whoever ends it for a reason: timeout, killed
    stopped_by_user: bool = False

    NESTED: ClassVar[Mapping[str, Any]] = {"attachment": Attachment}


class ContainerStore:
    """Paths and files; decides nothing. Thread-safe: it holds no state."""

    def __init__(self, settings: Settings) -> None:
        self._kept = f"{settings.data_root}/containers"
        self._transient = f"{settings.run_root}/containers"
        self._names = f"{settings.data_root}/names"

    # -- places

    def run_dir(self, container_id: str) -> str:
        return f"{self._transient}/{container_id}"

    def home(self, container_id: str, *, transient: bool) -> str:
        return f"{self._transient if transient else self._kept}/{container_id}"

    def home_of(self, record: ContainerRecord) -> str:
        return self.home(record.id, transient=record.spec.auto_remove)

    def path(self, container_id: str, name: str) -> str:
        """A file of the run directory."""
        return f"{self._transient}/{container_id}/{name}"

    # -- intention and locks

    def begin(self, container_id: str) -> Lock:
        """Write down that something is about to exist, and hold its lock.

        The directory appears with its lock already held (made aside, renamed): a sweeper never sees it unguarded.
        """
        aside = f"{self._transient}/.{container_id}.{os.urandom(4).hex()}"
        for directory in (self._names, self._kept, aside):
            make_private_directory(directory)
        lock = Lock(f"{aside}/op.lock")
        try:
            os.rename(aside, self.run_dir(container_id))
        except OSError as err:
            remove_tree(aside)
            lock.release()
            if err.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise Conflict(f"container {container_id[:12]} is in use") from err
            raise disk_error(aside, err) from err
        return lock

    def enter(self, container_id: str) -> Lock:
        """The operation lock of a container, whether it has a run directory just now or not."""
        while True:
            try:
                return self.lock(container_id)
            except NotFound:
                pass
            try:
                return self.begin(container_id)
            except Conflict:
                continue  # somebody else began between our two looks

    def lock(self, container_id: str, *, wait: bool = True) -> Lock:
        """The operation lock. Raises: BlockingIOError when not waiting; NotFound when the run directory is gone."""
        try:
            return Lock(self.path(container_id, "op.lock"), wait=wait)
        except FileNotFoundError:
            raise NotFound(f"No such container: {container_id[:12]}") from None

    def monitor_lives(self, container_id: str) -> bool:
        return is_held(self.path(container_id, "monitor.lock"))

    def operation_runs(self, container_id: str) -> bool:
        return is_held(self.path(container_id, "op.lock"))

    def has_ended(self, container_id: str) -> bool:
        """Whether a run is over, or was killed, and nobody has cleaned up yet."""
        if not os.path.exists(self.path(container_id, "run.json")):
            return False
        return not self.monitor_lives(container_id) and not self.operation_runs(container_id)

    def forget_run(self, container_id: str) -> None:
        """Remove the run directory: the last act of a clean-up.

        `run.json` goes first: while it is there the end is still to be recorded, from the exit file beside it. A kill
        that took the exit file alone would turn the exit code that was saved into "monitor lost".
        """
        try:
            os.unlink(self.path(container_id, "run.json"))
        except FileNotFoundError:
            pass
        remove_tree(self.run_dir(container_id))

    # -- records

    def save(self, record: ContainerRecord, *, durable: bool) -> None:
        home = self.home_of(record)
        make_private_directory(home)
        document = json.dumps(to_plain(record.replace(state=ContainerState(), attachment=None)))
        write_file(f"{home}/record.json", document, durable=durable)

    def make_durable(self, record: ContainerRecord) -> None:
        """Let a record that was written without waiting survive a power cut from now on."""
        home = self.home_of(record)
        fd = os.open(f"{home}/record.json", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        for directory in (home, self._kept, self._names):
            sync_directory(directory)

    def save_state(self, record: ContainerRecord, state: ContainerState, *, durable: bool) -> None:
        write_file(f"{self.home_of(record)}/state.json", json.dumps(to_plain(state)), durable=durable)

    def load(self, container_id: str) -> ContainerRecord:
        """The record with its last saved state. Raises: NotFound; Internal for a damaged file."""
        for home in (f"{self._transient}/{container_id}", f"{self._kept}/{container_id}"):
            plain = _read_json(f"{home}/record.json")
            if plain is not None:
                break
        else:
            raise NotFound(f"No such container: {container_id[:12]}")
        state = _read_json(f"{home}/state.json")
        try:
            record = from_plain(ContainerRecord, plain)
            return record if state is None else record.replace(state=from_plain(ContainerState, state))
        except TypeError as err:
            raise Internal(f"the record of container {container_id[:12]} is damaged", why=str(err)) from err

    def load_running(self, container_id: str) -> Running | None:
        plain = _read_json(self.path(container_id, "run.json"))
        return None if plain is None else from_plain(Running, plain)

    def save_running(self, container_id: str, running: Running) -> None:
        write_file(self.path(container_id, "run.json"), json.dumps(to_plain(running)), durable=False)

    def forget(self, record: ContainerRecord) -> None:
        """Remove name and record; the run directory goes by `forget_run`."""
        self.release_name(record.name, record.id)
        if not record.spec.auto_remove:
            self.release_other_names(record)
            remove_tree(self.home_of(record))

    # -- names

    def claim_name(self, name: str, container_id: str) -> None:
        """Raises: Conflict when another container has the name."""
        path = f"{self._names}/{name}"
        while True:
            try:
                os.symlink(container_id, path)
                return
            except FileExistsError:
                owner = self.owner_of(name)
                if owner and (self._is_called(owner, name) or self.operation_runs(owner)):
                    raise Conflict(
                        f'Conflict. The container name "/{name}" is already in use by container "{owner}"',
                        hint="remove or rename that container to be able to reuse the name",
                    ) from None
                self.release_name(name, owner)
            except OSError as err:
                raise disk_error(path, err) from err

    def owner_of(self, name: str) -> str:
        try:
            return os.readlink(f"{self._names}/{name}")
        except OSError:
            return ""

    def release_name(self, name: str, container_id: str) -> None:
        if self.owner_of(name) == container_id:
            try:
                os.unlink(f"{self._names}/{name}")
            except FileNotFoundError:
                pass

    def release_other_names(self, record: ContainerRecord) -> None:
        """Those that a rename left which was cut short."""
        for name in os.listdir(self._names):
            if name != record.name:
                self.release_name(name, record.id)

    def _is_called(self, container_id: str, name: str) -> bool:
        try:
            return self.load(container_id).name == name
        except NotFound:
            return False

    def _exists(self, container_id: str) -> bool:
        homes = (self._kept, self._transient)
        return any(os.path.exists(f"{home}/{container_id}/record.json") for home in homes)

    # -- lookup

    def ids(self) -> set[str]:
        return {*_listing(self._kept), *_listing(self._transient)}

    def run_ids(self) -> set[str]:
        return _listing(self._transient)

    def sweep_aside(self) -> None:
        """Remove directories of `begin` whose maker died before the rename (a minute is more than it ever takes)."""
        for name in os.listdir(self._transient):
            path = f"{self._transient}/{name}"
            try:
                if name.startswith(".") and os.stat(path).st_mtime < time.time() - 60:
                    remove_tree(path)
            except FileNotFoundError:  # renamed, or swept by another
                continue

    def kept_ids(self) -> set[str]:
        return _listing(self._kept)

    def resolve(self, text: str) -> str:
        """Full id of a container named by name, id or unique prefix of one. Raises: NotFound, Conflict."""
        wanted = text.removeprefix("/")
        if wanted and "/" not in wanted and wanted not in (".", ".."):
            owner = self.owner_of(wanted)
            if owner and self._exists(owner):
                return owner
            matches = [i for i in self.ids() if i.startswith(wanted) and self._exists(i)]
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise Conflict(f"Multiple IDs found with provided prefix: {wanted}")
        raise NotFound(f"No such container: {text}")

    def records(self) -> Iterator[ContainerRecord]:
        for container_id in self.ids():
            try:
                yield self.load(container_id)
            except NotFound:  # removed between the listing and now, or only begun
                continue


def _listing(path: str) -> set[str]:
    try:
        return {name for name in os.listdir(path) if len(name) == 64}
    except FileNotFoundError:
        return set()


def _read_json(path: str) -> Any:
    try:
        return json.loads(read_file(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as err:
        raise Internal(f"{path} is damaged", why=str(err)) from err


def remove_tree(path: str) -> None:
    """Remove a directory of ours that holds plain files only; absent is fine."""
    try:
        names = os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in sorted(names, key=_locks_last):
        try:
            os.unlink(f"{path}/{name}")
        except FileNotFoundError:
            pass
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError as err:
        if err.errno != errno.ENOTEMPTY:  # somebody has begun anew in our empty directory's place
            raise


def _locks_last(name: str) -> bool:
    # a crash half-way leaves the locks, so that the next one who looks still sees what to do
    return name.endswith(".lock")
