"""The use-cases of containers: what every door, and every program, can ask for."""

from __future__ import annotations

import time

from cloison.engine import creating, ending, launching
from cloison.engine.roots import open_roots
from cloison.errors import Conflict, InvalidArgument, LaunchFailed, NotFound
from cloison.linux import proc
from cloison.model.container import DEFAULT_STOP_TIMEOUT_S, ContainerState, Stdio
from cloison.store.containers import ContainerStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloison.archive.writer import Writable
    from cloison.engine.images import Images
    from cloison.engine.logs import LogEntry
    from cloison.engine.pruning import PruneFilter
    from cloison.images.progress import Progress
    from cloison.model.activity import ContainerStats, ProcessTable
    from cloison.model.container import ContainerRecord, ContainerSpec, ExecSpec, Resources
    from cloison.model.image import FileChange, Image
    from cloison.model.settings import Settings
    from cloison.model.usage import Pruned
    from cloison.runtime.session import Session
    from cloison.store.containers import Running
    from cloison.store.locks import Lock

_KILL_PATIENCE_S = 10.0


class Containers:
    """Every method takes a name, an id or a unique id prefix; all may be called from many threads and processes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = ContainerStore(settings)

    # -- making and starting

    def create(self, spec: ContainerSpec, *, progress: Progress | None = None) -> ContainerRecord:
        """Make a container that does not run yet. Raises: NotFound (image), InvalidArgument, Conflict, Unavailable."""
        self._open()
        record, lock = self._create(spec, progress, starts=False)
        with lock:
            if not spec.auto_remove:
                self._store.forget_run(record.id)
        return record

    def run(self, spec: ContainerSpec, *, stdio: Stdio, progress: Progress | None = None) -> Session:
        """Create and start; on return the command has been executed.

        Raises: as `create` and `start`; only a command that cannot be executed leaves a container, and not with --rm.
        """
        self._open()
        record, lock = self._create(spec, progress, starts=True)
        with lock:
            try:
                session = launching.start_container(record, settings=self._settings, stdio=stdio)
            except LaunchFailed:
                raise  # kept with its error, as Docker does, unless --rm
            except BaseException:
                creating.discard(record, settings=self._settings)  # the words were wrong: nothing is left of them
                raise
        # off the path: the command runs already
        if not spec.auto_remove:
            self._store.make_durable(record)
        ending.sweep(self._settings)
        return session

    def start(self, name: str, *, stdio: Stdio) -> Session:
        """Start a container that exists. Raises: Conflict when it runs already, LaunchFailed and its kinds."""
        self._open()
        ending.sweep(self._settings)
        record = self.find(name)
        if record.state.status == "running":
            raise Conflict(f"container {record.name} is already running")
        with self._store.enter(record.id):
            try:
                self._store.load(record.id)  # it may have been removed while we waited for the lock
            except NotFound:
                self._store.forget_run(record.id)
                raise
            ending.settle(record, settings=self._settings)
            return launching.start_container(record, settings=self._settings, stdio=stdio)

    def dry_run(self, spec: ContainerSpec) -> str:
        """The launch plan as text; nothing is made."""
        self._open()
        image = self._images().ensure(spec.image, policy=spec.pull, platform=spec.platform)
        record = creating.resolve(spec, image, container_id="0" * 64)
        return launching.explain(record, settings=self._settings, stdio=detached_stdio(spec))

    # -- looking

    def find(self, name: str) -> ContainerRecord:
        """The record with its state as of now. Raises: NotFound, Conflict (ambiguous id prefix)."""
        self._open()
        container_id = self._store.resolve(name)
        if self._store.has_ended(container_id):
            ending.finish_run(container_id, settings=self._settings)
        return self._with_state(self._store.load(container_id))

    def list(self, *, all: bool = False) -> list[ContainerRecord]:
        """Newest first; only the running ones unless ``all``. Cleans up after crashes on its way."""
        self._open()
        ending.sweep(self._settings)
        records = [self._with_state(record) for record in self._store.records()]
        shown = [r for r in records if all or r.state.status in ("running", "paused")]
        return sorted(shown, key=lambda record: record.created_ns, reverse=True)

    def running(self, name: str) -> tuple[ContainerRecord, Running]:
        """A container that runs, with its pid and leases. Raises: NotFound, Conflict."""
        record = self.find(name)
        running = self._store.load_running(record.id)
        if running is None or record.state.status not in ("running", "paused"):
            raise Conflict(f"container {record.name} is not running")
        return record, running

    def logs(
        self, name: str, *, stdout: bool = True, stderr: bool = True, tail: int | None = None, since_ns: int = 0,
        until_ns: int = 0, follow: bool = False,
    ) -> Iterator[LogEntry]:  # fmt: skip
        """What the command wrote, oldest first. ``follow`` ends when the container does."""
        from cloison.engine.logs import LogQuery, read_log

        record = self.find(name)
        query = LogQuery(
            stdout=stdout, stderr=stderr, tail=tail, since_ns=since_ns, until_ns=until_ns, follow=follow,
        )  # fmt: skip
        path = f"{self._store.home_of(record)}/log"
        return read_log(path, query, is_running=lambda: self._store.monitor_lives(record.id))

    def top(self, name: str, ps_options: Sequence[str] = ()) -> ProcessTable:
        """Its processes, as the host sees them. Raises: NotFound, Conflict (not running), InvalidArgument."""
        from cloison.engine.watching import list_processes

        return list_processes(self.running(name)[1], ps_options)

    def stats(self, name: str) -> ContainerStats:
        """What it uses at this moment; all 0 when it does not run. Raises: NotFound."""
        from cloison.engine.watching import read_stats

        record = self.find(name)
        runs = record.state.status in ("running", "paused")
        return read_stats(record, self._store.load_running(record.id) if runs else None)

    def changes(self, name: str) -> Sequence[FileChange]:
        """What its command, and every other, changed of the image's files, by path. Raises: NotFound, Unavailable."""
        from cloison.engine import trees

        return trees.container_changes(self.find(name), settings=self._settings)

    def export(self, name: str, out: Writable) -> None:
        """All its files as a tar stream, without volumes. Raises: NotFound, Unavailable; OSError of ``out``."""
        from cloison.engine import trees

        trees.export_container(self.find(name), out, settings=self._settings)

    def commit(
        self, name: str, reference: str = "", *, author: str = "", message: str = "", changes: Sequence[str] = (),
        pause: bool = True,
    ) -> Image:  # fmt: skip
        """An image of what the container is now: its image, one layer more, the words it was run with.

        ``changes`` are Dockerfile instructions; a running container is frozen while it is read, unless told otherwise.
        Raises: NotFound, InvalidArgument, Unavailable.
        """
        from cloison.engine.committing import Commit, commit

        asked = Commit(name=reference, author=author, message=message, changes=tuple(changes), pause=pause)
        return commit(self.find(name), asked, settings=self._settings, containers=self)

    # -- ending

    def finish(self, session: Session, *, reason: str = "") -> ContainerState:
        """Wait for the end of a container that `run` or `start` gave back, clean up, say how it ended."""
        exit = session.wait()
        return ending.finish_run(session.id, settings=self._settings, exit=exit, pid=session.pid, reason=reason)

    def wait(self, name: str) -> int:
        """Exit code, once the container has ended. An ended one answers at once."""
        record = self.find(name)
        if record.state.status not in ("running", "paused"):
            return record.state.exit_code
        try:
            with launching.connect(record, settings=self._settings) as session:
                session.attach()  # to nothing: only the end is of interest
                exit = session.wait()
        except (NotFound, Conflict):
            exit = None  # its monitor went while we knocked
        if exit is not None:
            self._await_monitor(record.id)  # until then the container counts as running
            return exit.exit_code
        return ending.finish_run(record.id, settings=self._settings).exit_code

    def kill(self, name: str, *, signal: str = "KILL") -> None:
        """Send a signal to the container's init. Raises: Conflict when it does not run, InvalidArgument."""
        self.signal(name, proc.parse_signal(signal))

    def signal(self, name: str, number: int) -> None:
        record, running = self.running(name)
        if not proc.send_signal(running.pid, running.pid_started, number):
            raise Conflict(f"container {record.name} is not running")

    def stop(self, name: str, *, timeout_s: int | None = None, signal: str = "") -> None:
        """Ask, wait, kill; clean up. An ended container is fine. ``timeout_s`` -1 waits for ever."""
        record = self.find(name)
        running = self._store.load_running(record.id)
        if running is None or record.state.status not in ("running", "paused"):
            ending.sweep(self._settings)
            return
        if record.state.status == "paused":
            self.unpause(record.id)
        patience = _first_set(timeout_s, record.spec.stop_timeout_s, DEFAULT_STOP_TIMEOUT_S)
        number = proc.parse_signal(signal or record.stop_signal)
        proc.send_signal(running.pid, running.pid_started, number)
        if not self._ended_within(record.id, running, None if patience < 0 else float(patience)):
            self._kill_all(record, running)
        ending.finish_run(record.id, settings=self._settings)

    def restart(self, name: str, *, timeout_s: int | None = None) -> None:
        """Stop when running, then start detached."""
        record = self.find(name)
        if record.spec.auto_remove and record.state.status == "running":
            raise InvalidArgument(f"cannot restart {record.name}", why="it is removed as soon as it stops (--rm)")
        self.stop(record.id, timeout_s=timeout_s)
        self.start(record.id, stdio=detached_stdio(record.spec)).close()

    def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container and its writable layer. Raises: Conflict when it runs and ``force`` is not given."""
        record = self.find(name)
        if record.state.status in ("running", "paused"):
            if not force:
                raise Conflict(
                    f'cannot remove container "{record.name}"', why="container is running",
                    hint="stop the container before removing it, or use -f",
                )  # fmt: skip
            self._end_by_force(record)
        with self._store.enter(record.id):
            ending.settle(record, settings=self._settings)
            creating.discard(record, settings=self._settings, with_volumes=volumes or record.spec.auto_remove)

    def prune(self, only: PruneFilter | None = None) -> Pruned:
        """Remove every container that does not run. Raises: Unavailable."""
        from cloison.engine.pruning import PruneFilter, prune_containers

        return prune_containers(self, settings=self._settings, only=only or PruneFilter())

    def rename(self, name: str, new: str) -> None:
        """Raises: Conflict when the new name is taken."""
        from cloison.engine import names, updating

        names.check_name(new)
        updating.rename(self.find(name).id, new, settings=self._settings)

    def update(self, name: str, resources: Resources) -> None:
        """Other limits, from now on; those that ``resources`` leaves out stay.

        Raises: NotFound, InvalidArgument, Unsupported; Conflict when more is in use than a new limit allows.
        """
        from cloison.engine.updating import update

        update(self.find(name).id, resources, settings=self._settings)

    def reap(self, container_id: str) -> None:
        """What a monitor asks for at the end of a container whose caller is gone (`cloison _reap ID`)."""
        self._open()
        try:
            ending.finish_run(container_id, settings=self._settings)
        except NotFound:
            return  # somebody was quicker

    # -- while it runs

    def attach(self, name: str) -> Session:
        """A second session on a running container; say which streams with its ``attach``."""
        record, _running = self.running(name)
        return launching.connect(record, settings=self._settings)

    def pause(self, name: str) -> None:
        self._freeze(name, frozen=True)

    def unpause(self, name: str) -> None:
        self._freeze(name, frozen=False)

    def exec(self, name: str, spec: ExecSpec, *, stdio: Stdio) -> Session:
        """Run one more command inside. Raises: Conflict when stopped or paused, LaunchFailed and its kinds."""
        from cloison.engine import joining

        record, running = self.running(name)
        if record.state.status == "paused":
            raise Conflict(f"container {record.name} is paused", hint="unpause the container before exec")
        return joining.exec_in(record, running, spec=spec, settings=self._settings, stdio=stdio)

    def finish_exec(self, session: Session) -> int:
        """Exit code of an exec session, once it has ended; 137 when its monitor was killed."""
        exit = session.wait()
        return exit.exit_code if exit is not None else 137

    # -- inside

    def _open(self) -> None:
        if open_roots(self._settings):
            ending.sweep_after_boot(self._settings)
            self._images().collect()  # what a power cut tore must not be taken for whole

    def _create(self, spec: ContainerSpec, progress: Progress | None, *, starts: bool) -> tuple[ContainerRecord, Lock]:
        """A new container with its operation lock held; its image cannot be removed before the record names it."""
        image, held = self._images().take(spec.image, policy=spec.pull, platform=spec.platform, progress=progress)
        with held:
            return creating.create_container(spec, image, settings=self._settings, durable=not starts, starts=starts)

    def _images(self) -> Images:
        from cloison.engine.images import Images

        return Images(self._settings)

    def _with_state(self, record: ContainerRecord) -> ContainerRecord:
        """The state as of now: files say what was, locks say what is."""
        running = self._store.load_running(record.id)
        if running is None:
            state = record.state
            if state.status == "running":  # its end was never seen: the machine was switched off
                state = state.replace(status="exited", exit_code=255, reason="monitor-lost")
            return record.replace(state=state)
        lives = self._store.monitor_lives(record.id)
        if not lives and (ended := ending.recorded_end(self._store, record.id, running=running)):
            return record.replace(state=ended)  # somebody is about to clean up
        status = "running" if lives and running.pid else "created"
        if status == "running" and self._is_frozen(running):
            status = "paused"
        state = ContainerState(status=status, pid=running.pid, started_ns=running.started_ns)
        return record.replace(state=state, attachment=running.attachment)

    def _is_frozen(self, running: Running) -> bool:
        from cloison.linux import cgroups

        return cgroups.is_frozen(cgroups.read_layout(), running.cgroup)

    def _freeze(self, name: str, *, frozen: bool) -> None:
        from cloison.linux import cgroups

        record, running = self.running(name)
        if (record.state.status == "paused") == frozen:
            raise Conflict(f"container {record.name} is {'already' if frozen else 'not'} paused")
        cgroups.freeze(cgroups.read_layout(), running.cgroup, frozen=frozen)

    def _ended_within(self, container_id: str, running: Running, timeout_s: float | None) -> bool:
        """Wait for init's death, then for the monitor, which drains the output and writes the exit file."""
        if not proc.wait_for_end(running.pid, running.pid_started, timeout_s=timeout_s):
            return False
        self._await_monitor(container_id)
        return True

    def _await_monitor(self, container_id: str) -> None:
        deadline = time.monotonic() + _KILL_PATIENCE_S
        while self._store.monitor_lives(container_id) and time.monotonic() < deadline:
            time.sleep(0.002)

    def _kill_all(self, record: ContainerRecord, running: Running) -> None:
        from cloison.linux import cgroups

        cgroups.kill(cgroups.read_layout(), running.cgroup)
        if not self._ended_within(record.id, running, _KILL_PATIENCE_S):
            raise Conflict(
                f"cannot kill container {record.name}", why="its processes do not die (blocked in the kernel?)"
            )

    def _end_by_force(self, record: ContainerRecord) -> None:
        running = self._store.load_running(record.id)
        if running is not None:
            self._kill_all(record, running)
            try:
                ending.finish_run(record.id, settings=self._settings)
            except NotFound:
                return  # --rm: its own monitor was quicker


def detached_stdio(spec: ContainerSpec) -> Stdio:
    """Streams of a container that nobody watches: into the log, stdin kept open only when asked."""
    if spec.tty:
        return Stdio(stdin="pty", stdout="pty", stderr="pty", detached=True)
    return Stdio(stdin="pipe" if spec.interactive else "null", detached=True)


def _first_set(*values: int | None) -> int:
    return next(value for value in values if value is not None)
