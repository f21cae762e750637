"""Starting a container that exists: leases, cgroup, namespaces, network, command.

Everything is written down before it is made (`Running` in the run directory); whatever kills us between two lines, the
run directory with its free lock tells the next command what to take away.
"""

from __future__ import annotations

import os
import sys

from cloison.engine import creating, ending, hostfiles, specs, templates
from cloison.errors import CloisonError, CommandNotFound, CommandNotInvocable, Conflict, LaunchFailed
from cloison.linux import cgroups, proc
from cloison.model.container import Attachment, ContainerState
from cloison.runtime import plan
from cloison.runtime.compile import Surroundings, plan_launch
from cloison.runtime.facts import read_facts
from cloison.runtime.launch import Repeated
from cloison.runtime.monitor import MonitorPlan
from cloison.runtime.session import connect as connect_session
from cloison.runtime.session import listen
from cloison.snapshots.drivers import open_snapshots
from cloison.store.containers import ContainerStore, Running
from cloison.store.locks import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.model.container import ContainerRecord, Stdio
    from cloison.model.settings import Settings
    from cloison.runtime.session import Session

_SIGKILL = 9
# How Docker's users know a start that failed (users.md: exit codes); everything else is 128.
_FAILED_CODES: tuple[tuple[type[CloisonError], int], ...] = ((CommandNotFound, 127), (CommandNotInvocable, 126))


def connect(record: ContainerRecord, *, settings: Settings) -> Session:
    """One more session on a running container. Raises: NotFound when its monitor is gone."""
    return connect_session(ContainerStore(settings).path(record.id, "socket"), id=record.id)


def start_container(record: ContainerRecord, *, settings: Settings, stdio: Stdio) -> Session:
    """Start it; the operation lock is held. On return the command has been executed, or nothing is left of the try.

    Raises: LaunchFailed and its kinds, Conflict (it runs, a port is taken), Unsupported and Denied (a limit, a device).
    """
    store = ContainerStore(settings)
    running = store.load_running(record.id) or creating.begin_run(record.id, settings=settings)
    if running.pid:
        raise Conflict(f"container {record.name} is already running")
    attempt = _Start(record, running, settings=settings, store=store)
    try:
        session = attempt.run(stdio)
    except BaseException as err:
        attempt.undo(err)
        raise
    if not record.spec.auto_remove:
        store.save_state(record, ContainerState(status="running", started_ns=running.started_ns), durable=False)
    return session


class _MonitorLost(LaunchFailed):
    """Killed before it could say whether the command has been executed."""


class _Start:
    """One try to start one container: what was made so far is in ``running``, which is on disk too."""

    def __init__(self, record: ContainerRecord, running: Running, *, settings: Settings, store: ContainerStore) -> None:
        self._record = record
        self._running = running
        self._settings = settings
        self._store = store
        self._session: Session | None = None

    def run(self, stdio: Stdio) -> Session:
        record = self._record
        neighbours = specs.find_neighbours(record.spec, settings=self._settings)
        attachment = self._lease() if record.spec.network == "bridge" else None
        files = self._host_files(attachment, neighbours)
        around, lock = self._surroundings(record)
        try:
            template = self._template(around, neighbours, files=files, stdio=stdio)
            self._session = self._launch(template, stdio)
        finally:
            os.close(around.monitor.listen)
            lock.release()
        self._conduct(self._session)
        specs.check_neighbours(neighbours)
        return self._session

    def _launch(self, template: templates.Template, stdio: Stdio) -> Session:
        """The launcher makes the namespaces while we make the cgroups."""
        group, path = template.group, self._running.cgroup
        group.reserve(path)
        session = template.plan.launch(self._record.id, attached=shows_terminal(stdio))
        try:
            group.make(path, reserved=True)
        except BaseException:
            session.cancel()
            raise
        session.proceed()
        return session

    def _template(
        self, around: Surroundings, neighbours: specs.Neighbours, *, files: str, stdio: Stdio
    ) -> templates.Template:
        """The plan, known from an equal start before this one or worked out."""
        record = self._record
        if not templates.is_repeatable(record):
            return self._plan(around, neighbours, files=files, stdio=stdio)
        # of what changes from run to run only the id is left, and descriptors, which seldom do
        monitor = (around.monitor.listen, around.monitor.keep)
        words = (record.spec, record.image_id, record.argv, record.env, record.workdir, record.user)
        key = (*words, stdio, around.facts, monitor, self._settings)
        known = templates.find(key)
        if known is None:
            template = self._plan(around, neighbours, files=files, stdio=stdio)
            templates.remember(key, template)
            return template
        return known

    def _plan(
        self, around: Surroundings, neighbours: specs.Neighbours, *, files: str, stdio: Stdio
    ) -> templates.Template:
        record, settings = self._record, self._settings
        root = open_snapshots(settings).mount_of(record.id, record.layers, volatile=record.spec.auto_remove)
        build = specs.build_spec(
            record,
            root=root,
            settings=settings,
            facts=around.facts,
            neighbours=neighbours,
            stdio=stdio,
            host_files=files,
        )
        linux = build.spec.linux
        group = cgroups.plan_group(cgroups.read_layout(), resources=linux.resources, device_rules=linux.device_rules)
        around = around.replace(placement=group.placement(self._running.cgroup), seccomp=build.seccomp)
        ops = plan_launch(build.spec, around=around, stdio=stdio)
        return templates.Template(plan=Repeated(ops, id=record.id), group=group)

    def _host_files(self, attachment: Attachment | None, neighbours: specs.Neighbours) -> str:
        """The directory with hosts, hostname and resolv.conf.

        Our own, or that of the container whose network we join.
        """
        if neighbours.network is not None:
            return self._store.run_dir(neighbours.network.id)
        directory = self._store.run_dir(self._record.id)
        hostname = specs.hostname_of(self._record)
        hostfiles.write_host_files(self._record.spec, directory, hostname=hostname, attachment=attachment)
        return directory

    def _lease(self) -> Attachment:
        from cloison.networks import bridge

        ports = specs.published_ports(self._record)
        attachment = bridge.lease(self._settings, container_id=self._record.id, ports=ports)
        self._note(attachment=attachment)
        return attachment

    def _note(self, **changes: object) -> None:
        self._running = self._running.replace(**changes)
        self._store.save_running(self._record.id, self._running)

    def _surroundings(self, record: ContainerRecord) -> tuple[Surroundings, Lock]:
        store, spec = self._store, record.spec
        lock = Lock(store.path(record.id, "monitor.lock"))
        try:
            listener = listen(_fresh(store.path(record.id, "socket")))
        except BaseException:
            lock.release()
            raise
        monitor = MonitorPlan(
            listen=listener,
            keep=(lock.fd,),
            log="" if spec.no_log else f"{store.home_of(record)}/log",
            log_max_bytes=spec.log_max_bytes,
            log_max_files=spec.log_max_files,
            exit_file=_fresh(store.path(record.id, "exit")),
            reap=reap_command(record.id, self._settings),
        )
        around = Surroundings(
            placement=cgroups.Placement(),
            placed_late=True,
            staging=staging_directory(self._settings),
            layout=cgroups.read_layout(),
            facts=read_facts(),
            monitor=monitor,
            configure_network=spec.network == "bridge",
            keyring=record.id,
        )
        return around, lock

    def _conduct(self, session: Session) -> None:
        """From the clone to the execve: note the pid, connect the network, release the command."""
        socket = -1
        try:
            while True:
                message = session.receive()
                if message.kind == "netlink":
                    socket = message.fd
                elif message.kind == "created":
                    self._note(pid=message.pid, pid_started=_start_time(message.pid))
                elif message.error is not None:
                    raise message.error
                elif message.kind in ("started", "exited"):
                    return
                elif message.kind == "closed":
                    raise _MonitorLost("the container could not be started", why="its monitor ended without a word")
                if socket >= 0 and self._running.pid:
                    self._connect(socket)
                    os.close(socket)
                    socket = -1
                    _release(session)
        finally:
            if socket >= 0:
                os.close(socket)

    def _connect(self, namespace_socket: int) -> None:
        from cloison.networks import bridge

        if self._running.attachment is not None:
            bridge.connect(self._settings, self._running.attachment, namespace_socket=namespace_socket)

    def undo(self, err: BaseException) -> None:
        """Leave nothing: neither process, cgroup, link, lease nor, with --rm, the container."""
        if self._session is not None:
            if self._running.pid:
                proc.send_signal(self._running.pid, self._running.pid_started, _SIGKILL)
            self._session.close()
        code = next((code for kind, code in _FAILED_CODES if isinstance(err, kind)), 128)
        state = ContainerState(status="created", exit_code=code, reason="start-failed", error=str(err))
        if isinstance(err, _MonitorLost) and self._running.pid:
            state = ending.final_state(None, running=self._running, reason="")  # the command may have begun
        ending.clean_up(self._record, self._running, settings=self._settings, state=state)


def _release(session: Session) -> None:
    try:
        session.start()
    except Conflict:
        pass  # the monitor is gone; its last message, or that there is none, says why


def shows_terminal(stdio: Stdio) -> bool:
    """Whether the caller is to see what comes from the command's terminal."""
    return stdio.stdin == "pty" and not stdio.detached


def _start_time(pid: int) -> int:
    try:
        return proc.start_time(pid)
    except CloisonError:
        return 0  # it failed already; the message that says so is next


def _fresh(path: str) -> str:
    """A path that a run before this one may have used."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    return path


def staging_directory(settings: Settings) -> str:
    """An empty directory where each container, in a mount namespace of its own, mounts its root before it moves in."""
    path = f"{settings.run_root}/root"
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    return path


def reap_command(container_id: str, settings: Settings) -> tuple[str, ...]:
    """What a monitor executes when its container has ended and nobody waits.

    This very package, whatever the environment.
    """
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = f"import sys; sys.path.insert(0, {home!r}); from cloison.__main__ import main; sys.exit(main())"
    roots = ("--data-root", settings.data_root, "--run-root", settings.run_root)
    return (sys.executable, "-I", "-S", "-c", code, *roots, "_reap", container_id)


def explain(record: ContainerRecord, *, settings: Settings, stdio: Stdio) -> str:
    """The plan of a container that is not made, as text: nothing is leased, mounted or written."""
    root = open_snapshots(settings).plan_mount(record.id, record.layers, volatile=record.spec.auto_remove)
    facts = read_facts()
    neighbours = specs.find_neighbours(record.spec, settings=settings)
    files = ContainerStore(settings).run_dir(record.id)
    build = specs.build_spec(
        record, root=root, settings=settings, facts=facts, neighbours=neighbours, stdio=stdio, host_files=files
    )
    around = Surroundings(
        placement=cgroups.Placement(), staging=f"{settings.run_root}/root", layout=cgroups.read_layout(), facts=facts,
        seccomp=build.seccomp, configure_network=record.spec.network == "bridge", keyring=record.id,
    )  # fmt: skip
    return plan.render(plan_launch(build.spec, around=around, stdio=stdio))
