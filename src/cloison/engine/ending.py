"""The end of a container's run: its exit read, its traces removed, in an order that a crash anywhere leaves repeatable.

Whoever comes first does it: the caller in the foreground, `stop`, the monitor's own `_reap`, or the next command's
sweep. The operation lock makes it happen once.
"""

from __future__ import annotations

import os
import time

from cloison.engine import creating
from cloison.errors import Conflict, NotFound
from cloison.linux import cgroups
from cloison.model.container import ContainerState
from cloison.runtime.session import parse_exit
from cloison.snapshots.drivers import open_snapshots
from cloison.store.atomic import read_file
from cloison.store.containers import ContainerStore, Running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.model.container import ContainerRecord
    from cloison.model.settings import Settings
    from cloison.runtime.session import Exit
    from cloison.store.locks import Lock

_SIGKILL = 9
_MONITOR_LOST = 255


def finish_run(
    container_id: str, *, settings: Settings, exit: Exit | None = None, pid: int = 0, reason: str = ""
) -> ContainerState:
    """Clean up after a container that has ended; idempotent.

    ``exit`` is what the monitor told us of the run whose init was ``pid``; without it the exit file is read. Whoever
    comes late may meet the container's next run, and leaves it alone.

    Returns the final state. Raises: NotFound when somebody else has removed the container and ``exit`` is unknown.
    """
    store = ContainerStore(settings)
    try:
        lock = store.lock(container_id)
    except NotFound:
        return _state_after_others(store, container_id, exit, reason=reason)
    with lock:
        running = store.load_running(container_id)
        if running is None or (exit is not None and running.pid != pid):
            return _state_after_others(store, container_id, exit, reason=reason)
        if exit is None and store.monitor_lives(container_id):
            return ContainerState(status="running", pid=running.pid, started_ns=running.started_ns)
        record = store.load(container_id)
        state = final_state(exit or _read_exit(store, container_id), running=running, reason=reason)
        clean_up(record, running, settings=settings, state=state)
        return state


def settle(record: ContainerRecord, *, settings: Settings) -> None:
    """Before another operation: clean up after a run that has ended; the operation lock is held.

    Raises: Conflict when it runs.
    """
    store = ContainerStore(settings)
    running = store.load_running(record.id)
    if running is None:
        return
    if store.monitor_lives(record.id):
        raise Conflict(f"container {record.name} is running")
    state = final_state(_read_exit(store, record.id), running=running, reason="")
    clean_up(record, running, settings=settings, state=state)


def clean_up(record: ContainerRecord, running: Running, *, settings: Settings, state: ContainerState) -> None:
    """Take away what `start` made; the operation lock is held. The run directory goes last.

    Until then anybody can repeat this.
    """
    store = ContainerStore(settings)
    keep = not record.spec.auto_remove
    if keep:
        store.save_state(record, state, durable=True)
    cgroups.remove(cgroups.read_layout(), running.cgroup)
    open_snapshots(settings).release(record.id)
    if running.attachment is not None:
        from cloison.networks import bridge

        bridge.disconnect(settings, running.attachment, container_id=record.id)
    if keep:
        store.forget_run(record.id)
    else:
        creating.discard(record, settings=settings)


def final_state(exit: Exit | None, *, running: Running, reason: str) -> ContainerState:
    """Docker's ``State`` of an ended container, with the reason that Docker does not tell."""
    if exit is None:
        return ContainerState(
            status="exited", exit_code=_MONITOR_LOST, reason="monitor-lost", started_ns=running.started_ns,
            finished_ns=time.time_ns(), error="the container's monitor was killed",
        )  # fmt: skip
    oom = exit.stats.get("oom", 0) > 0
    return ContainerState(
        status="exited",
        exit_code=exit.exit_code,
        oom_killed=oom,
        reason=_reason(exit, running, asked=reason, oom=oom),
        started_ns=exit.started_ns or running.started_ns,
        finished_ns=exit.finished_ns,
        memory_peak_bytes=exit.stats.get("memory_peak", 0),
        user_us=exit.user_us,
        system_us=exit.system_us,
    )


def _reason(exit: Exit, running: Running, *, asked: str, oom: bool) -> str:
    if asked or running.reason:
        return asked or running.reason
    if oom and exit.exit_code != 0:
        return "oom"
    return "killed" if exit.signal == _SIGKILL else ""


def recorded_end(store: ContainerStore, container_id: str, *, running: Running) -> ContainerState | None:
    """The end of the present run, once its monitor has recorded one; None before that."""
    exit = _read_exit(store, container_id)
    return None if exit is None else final_state(exit, running=running, reason="")


def _read_exit(store: ContainerStore, container_id: str) -> Exit | None:
    try:
        return parse_exit(read_file(store.path(container_id, "exit")).decode())
    except FileNotFoundError:
        return None


def _state_after_others(store: ContainerStore, container_id: str, exit: Exit | None, *, reason: str) -> ContainerState:
    """Somebody else cleaned up first: what they saved, or what the monitor told us."""
    if exit is not None:
        return final_state(exit, running=Running(), reason=reason)
    return store.load(container_id).state


class _Alive:
    """The ids whose leases stand, looked up when asked: a container may start while a sweep reads the leases."""

    def __init__(self, store: ContainerStore) -> None:
        self._store = store

    def __contains__(self, container_id: object) -> bool:
        return isinstance(container_id, str) and os.path.isdir(self._store.run_dir(container_id))


def sweep(settings: Settings) -> int:
    """Clean up after every command and monitor that was killed; returns how many containers needed it.

    A container needs it when its run directory exists, its monitor is gone and nobody holds the operation lock.
    """
    store = ContainerStore(settings)
    swept = 0
    store.sweep_aside()
    for container_id in store.run_ids():
        if not store.monitor_lives(container_id) and not store.operation_runs(container_id):
            swept += _sweep_one(container_id, settings=settings, store=store)
    if swept:
        from cloison.networks import bridge

        bridge.sweep(settings, alive=_Alive(store))
    return swept


def _sweep_one(container_id: str, *, settings: Settings, store: ContainerStore) -> int:
    try:
        lock: Lock = store.lock(container_id, wait=False)
    except (BlockingIOError, NotFound):
        return 0
    with lock:
        if store.monitor_lives(container_id):
            return 0
        return _settle(container_id, settings=settings, store=store)


def _settle(container_id: str, *, settings: Settings, store: ContainerStore) -> int:
    """The rest of a crash, under its lock: finish it, undo it, or see that nothing is wrong."""
    running = store.load_running(container_id)
    try:
        record = store.load(container_id)
    except NotFound:
        _purge(container_id, settings=settings, store=store)
        return 1
    if running is not None:
        state = final_state(_read_exit(store, container_id), running=running, reason="")
        clean_up(record, running, settings=settings, state=state)
        return 1
    if store.owner_of(record.name) != container_id:
        creating.discard(record, settings=settings)
        return 1
    if not record.spec.auto_remove:
        store.release_other_names(record)
        store.forget_run(container_id)
    return 0


def _purge(container_id: str, *, settings: Settings, store: ContainerStore) -> None:
    """A creation that died before its record: at most directories exist."""
    from cloison.store.containers import remove_tree

    open_snapshots(settings).remove(container_id)
    remove_tree(store.home(container_id, transient=False))
    store.forget_run(container_id)


def sweep_after_boot(settings: Settings) -> None:
    """The first command of a boot: creations that the power cut interrupted leave no run directory to tell of them.

    Only what is older than this boot can be such a rest. Several commands may be the first at once, and what one of
    them is making has no name yet when another looks; nor does it know of containers of another run root.
    """
    store = ContainerStore(settings)
    snapshots = open_snapshots(settings)
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    known = {record.id for record in store.records() if store.owner_of(record.name) == record.id}
    for container_id in (store.kept_ids() | set(snapshots.list_containers())) - known:
        homes = (store.home(container_id, transient=False), snapshots.home(container_id))
        if not any(_changed_since(home, booted) for home in homes):
            _purge(container_id, settings=settings, store=store)


def _changed_since(path: str, moment: float) -> bool:
    try:
        return os.stat(path, follow_symlinks=False).st_mtime >= moment
    except FileNotFoundError:
        return False
