"""``create``: from a bundle to a process that waits, in everything that was configured, for ``start``.

The record is on disk before anything is made; after a failure nothing is left.
"""

from __future__ import annotations

import os
import time

from cloison.errors import CloisonError, Conflict, Internal, NotFound
from cloison.linux import cgroups, proc
from cloison.model.container import Resources
from cloison.model.record import Record
from cloison.oci_runtime import ending
from cloison.oci_runtime.bundle import Bundle, complete, connect_agent, seccomp_filter
from cloison.oci_runtime.containers import Container, Containers
from cloison.oci_runtime.descriptors import Inherited
from cloison.oci_runtime.log import timestamp
from cloison.oci_runtime.streams import standard_streams, write_pid_file
from cloison.oci_runtime.trees import Trees
from cloison.runtime import launch
from cloison.runtime.compile import Surroundings, plan_launch
from cloison.runtime.facts import read_facts
from cloison.runtime.monitor import MonitorPlan
from cloison.runtime.session import Session, listen, make_report
from cloison.store.atomic import write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.oci.config_json import Config
    from cloison.oci.runtime import Hooks, Rdt, Spec
    from cloison.oci_runtime.log import Log
    from cloison.runtime.plan import Op


class Wishes(Record):
    """What the command line adds to the bundle."""

    pid_file: str = ""
    console: int = -1  # a stream socket for the terminal's master
    keyring: bool = True
    cgroup: bool = True
    systemd: bool = False  # it makes the control group
    runtime_directory: str = ""  # XDG_RUNTIME_DIR, where systemd is not root's
    waits: bool = False  # we stay, as the command's parent
    inherited: Inherited = Inherited()
    cache: str = ""  # directory of compiled filters


def create(containers: Containers, container_id: str, *, bundle: Bundle, wishes: Wishes, log: Log) -> Container:
    """On return it waits for ``start``. Raises: Conflict, LaunchFailed and its kinds, InvalidArgument, Unsupported …"""
    spec = complete(bundle.config, container_id=container_id)
    if os.geteuid() and not wishes.systemd and not _asks_for_limits(bundle):
        wishes = wishes.replace(cgroup=False)  # it would not be ours to make, and nobody asked for one
    if os.geteuid() and not bundle.config.spec.linux.device_rules:
        # Nobody asked for a filter, and loading one takes rights: a user makes no node, and opens what is the user's
        spec = spec.replace(linux=spec.linux.replace(device_rules=()))
    if wishes.inherited.env:
        spec = spec.replace(process=spec.process.replace(env=(*spec.process.env, *wishes.inherited.env)))
    with containers.claim(container_id):
        attempt = Creation(containers, container_id, bundle=bundle, spec=spec, wishes=wishes)
        try:
            return attempt.run()
        except BaseException:
            attempt.undo(log)
            raise


def _asks_for_limits(bundle: Bundle) -> bool:
    linux = bundle.config.spec.linux
    return bool(linux.cgroups_path) or linux.resources != Resources()


def _readers(config: Config) -> tuple[str, ...]:
    """The verbs that find something to do in the configuration; it costs the others nothing."""
    hooks = config.spec.hooks
    has_agent = isinstance(config.seccomp, dict) and bool(config.seccomp.get("listenerPath"))
    at_start = hooks.start_container or hooks.poststart or has_agent
    return (*(("start",) if at_start else ()), *(("delete",) if hooks.poststop else ()))


class Creation:
    """One try to create one container; what was made so far is in ``container``, which is on disk too."""

    def __init__(
        self, containers: Containers, container_id: str, *, bundle: Bundle, spec: Spec, wishes: Wishes
    ) -> None:
        self._containers = containers
        self._bundle = bundle
        self._spec = spec
        self._wishes = wishes
        self._session: Session | None = None
        self._met_hooks = False
        self._classes: list[str] = []  # directories of the resctrl file system to be in
        self._placeholder: launch.Placeholder | None = None
        self._group: cgroups.Group | None = None  # made while the launcher works
        self.container = Container(
            id=container_id,
            bundle=bundle.directory,
            rootfs=spec.root.mount.source,
            oci_version=bundle.config.oci_version,
            created=timestamp(time.time_ns()),
            owner=str(os.geteuid()),
            has_process=bundle.config.has_process,
            annotations=spec.annotations,
            reads_config=_readers(bundle.config),
        )

    def run(self) -> Container:
        write_file(self._containers.path(self.container.id, "config.json"), self._bundle.text, durable=False)
        self._containers.save(self.container)
        if any(namespace.type == "mount" and namespace.path for namespace in self._spec.linux.namespaces):
            from cloison.oci_runtime import joined_mounts

            place = joined_mounts.given(self._spec.linux)
            self._record(**joined_mounts.look_at(place, self._spec))
        try:
            self._prepare_and_launch()
        finally:
            if self._placeholder is not None:
                self._placeholder.close()
        if self._wishes.pid_file:
            write_pid_file(self._wishes.pid_file, self.container.pid)
        if self._session is not None:
            self._session.leave()
        return self.container

    def _prepare_and_launch(self) -> None:
        layout = cgroups.read_layout()
        placement = self._place(layout)
        if self._spec.linux.rdt is not None:
            self._allot(self._spec.linux.rdt)
        listener = listen(self._containers.path(self.container.id, "start"))
        try:
            report = make_report(self._containers.path(self.container.id, "report"))
            try:
                self._launch(self._surroundings(layout, placement, listener=listener, report=report))
            finally:
                os.close(report)
        finally:
            os.close(listener)

    def _launch(self, around: Surroundings) -> None:
        """On return the first process waits for ``start``."""
        with Trees(self._spec, scratch=self._containers.path(self.container.id, "nodes")) as trees:
            stdio = standard_streams(terminal=self._spec.process.terminal)
            ops = plan_launch(trees.prepare(), around=around, stdio=stdio)
            if not self.container.has_process:  # nothing to look for: ``start`` will refuse
                ops = tuple(op for op in ops if op.verb != "find-command")
            self._session = self._begin(ops)
            self._conduct(self._session)

    def _begin(self, ops: tuple[Op, ...]) -> Session:
        """The launcher makes the namespaces and mounts while we make the control group."""
        session = launch.launch(ops, id=self.container.id)
        if self._group is None:
            return session
        try:
            self._make_group(self._group)
        except BaseException:
            session.cancel()
            raise
        session.proceed()
        return session

    def _make_group(self, group: cgroups.Group) -> None:
        try:
            group.make(self.container.cgroup, reserved=True)
        except Conflict:
            if cgroups.pids(group.layout, self.container.cgroup):
                self._record(cgroup="")  # somebody else's, just made
            raise

    def _place(self, layout: cgroups.Layout) -> cgroups.Placement:
        path = self._spec.linux.cgroups_path
        if not self._wishes.cgroup:
            return cgroups.Placement()
        if self._wishes.systemd:
            return self._place_in_unit(layout)
        # Whoever cleans up kills what is in the recorded group, so it must be nobody's when it is written down.
        if cgroups.pids(layout, path):
            raise Conflict(f"control group {path} exists already", why="there are processes in it")
        group = self._plan_cgroup(layout)
        self._record(cgroup=path)
        if any(os.path.isdir(f"{root}/{path}") for root in layout.all_roots()):
            cgroups.remove(layout, path)  # left by somebody; nobody is in it
        try:
            group.reserve(path)
        except Conflict:
            self._record(cgroup="")  # somebody else's, just made
            raise
        self._group = group
        return group.placement(path)

    def _place_in_unit(self, layout: cgroups.Layout) -> cgroups.Placement:
        """systemd takes no promises: a process that waits holds the unit until the container's own is there."""
        from cloison.oci_runtime import systemd_unit

        unit = systemd_unit.parse_unit(
            self._bundle.config.spec.linux.cgroups_path, container_id=self.container.id, is_root=not os.geteuid()
        )
        session = self._wishes.runtime_directory if os.geteuid() else ""
        self._placeholder = launch.Placeholder()
        self._record(unit=unit.name, session=session)
        try:
            path = systemd_unit.start(
                unit, self._spec, pid=self._placeholder.pid, description=f"cloison container {self.container.id}",
                runtime_directory=session,
            )  # fmt: skip
        except Conflict:
            self._record(unit="")  # it is somebody else's
            raise
        self._record(cgroup=path)
        group = self._plan_cgroup(layout)
        group.make(path, standing=True)
        return group.placement(path)

    def _allot(self, wanted: Rdt) -> None:
        """Make the RDT class and its monitoring group as far as they are asked for; see `_note`."""
        from cloison.linux import resctrl

        root, container_id = resctrl.find_root(), self.container.id
        directory = resctrl.directory_of(wanted, root=root, container_id=container_id)
        if resctrl.check(wanted, root=root, container_id=container_id):
            self._record(rdt=(directory,))
            try:
                resctrl.make(directory, wanted.schemata)
            except Conflict:
                self._record(rdt=())  # somebody else's, just made
                raise
        self._classes = [directory]
        if wanted.monitoring:
            group = resctrl.monitoring_group(directory, container_id)
            self._record(rdt=(group, *self.container.rdt))
            resctrl.make(group)
            self._classes.append(group)

    def _record(self, **changes: object) -> None:
        self.container = self.container.replace(**changes)
        self._containers.save(self.container)

    def _plan_cgroup(self, layout: cgroups.Layout) -> cgroups.Group:
        linux = self._spec.linux
        return cgroups.plan_group(
            layout,
            resources=linux.resources,
            device_rules=linux.device_rules,
            controllers=layout.legacy,  # callers read figures in all of them, by the paths in /proc/<pid>/cgroup
        )

    def _surroundings(
        self, layout: cgroups.Layout, placement: cgroups.Placement, *, listener: int, report: int
    ) -> Surroundings:
        hooks = self._spec.hooks
        monitor = MonitorPlan(
            absent=True,
            sibling=self._wishes.waits,
            start_on=listener,
            start_report=report,
            pause_for_hooks=bool(hooks.prestart or hooks.create_runtime or hooks.create_container),
        )
        return Surroundings(
            placement=placement,
            placed_late=self._group is not None,
            # On itself, in its own mount namespace: hooks look for the mounts below root.path
            staging=self._bundle.config.spec.root.mount.source,
            layout=layout,
            facts=read_facts(),
            monitor=monitor,
            seccomp=seccomp_filter(self._bundle.config, cache=self._wishes.cache),
            hand_netlink=bool(self._spec.linux.net_devices),
            keyring=self.container.id if self._wishes.keyring else "",
            console=self._wishes.console,
            preserve=self._wishes.inherited.fds,
        )

    def _conduct(self, session: Session) -> None:
        """From the clone to the wait for ``start``: note the pid, run the hooks in between."""
        hooks = self._spec.hooks
        pausing = bool(hooks.prestart or hooks.create_runtime or hooks.create_container)
        while True:
            message = session.receive()
            if message.kind == "created":
                self._note(message.pid)
            elif message.error is not None:
                raise message.error
            elif message.kind == "waiting" and pausing:
                pausing = False
                self._run_hooks(hooks)
                session.start()
            elif message.kind == "netlink":
                self._move_devices(message.fd)
            elif message.kind == "listener":
                self._tell_agent(message.fd)
            elif message.kind == "waiting":
                return
            elif message.kind in ("closed", "exited"):
                raise Internal("the container could not be created", why="its first process ended without a word")

    def _move_devices(self, inside: int) -> None:
        from cloison.linux.net_devices import move_devices

        try:
            move_devices(self._spec.linux.net_devices, inside=inside)
        finally:
            os.close(inside)

    def _tell_agent(self, listener: int) -> None:
        agent = connect_agent(self._bundle.config)
        assert agent is not None  # the filter has a listener because of it
        agent.hand_over(listener, container=self.container, pid=self.container.pid, status="creating")

    def _run_hooks(self, hooks: Hooks) -> None:
        """Those between the mounts and the change of the root."""
        from cloison.oci_runtime.hooks import run_hooks

        self._run_outer_hooks(hooks)
        if hooks.create_container:
            from cloison.oci_runtime.inner_hooks import inner_pid, of_creation

            runner, pid = of_creation(self.container), inner_pid(self.container.pid)
            run_hooks(
                "createContainer", hooks.create_container, container=self.container, status="creating", runner=runner,
                pid=pid,
            )  # fmt: skip

    def _run_outer_hooks(self, hooks: Hooks) -> None:
        from cloison.oci_runtime.hooks import run_hooks

        self._met_hooks = True
        # runtime-spec 1.0.1, where these hooks are from: once created, before the command
        run_hooks("prestart", hooks.prestart, container=self.container, status="created")
        run_hooks("createRuntime", hooks.create_runtime, container=self.container, status="creating")

    def _note(self, pid: int) -> None:
        try:
            started = proc.start_time(pid)
        except NotFound:
            return  # it failed already; the message that says so is next
        self._record(pid=pid, pid_started=started)
        for directory in self._classes:
            from cloison.linux import resctrl

            resctrl.join(directory, pid)

    def undo(self, log: Log) -> None:
        """Leave nothing: neither process, control group nor record."""
        ending.kill_first(self.container)
        if self._session is not None:
            self._session.close()
        try:
            hooks = self._spec.hooks.poststop if self._met_hooks else ()
            ending.clean_up(self._containers, self.container, poststop=hooks, log=log)
        except CloisonError as error:
            log.warning(str(error))  # the reason why we are here is the better message
