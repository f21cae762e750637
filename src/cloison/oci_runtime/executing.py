"""From a process object to a process in the container: the plan, the launch, and the pid file before anybody asks."""

from __future__ import annotations

import os

from cloison.errors import Internal, NotFound
from cloison.linux import cgroups, proc
from cloison.linux.cgroup_processes import read_text
from cloison.model.record import Record
from cloison.oci.runtime import Linux
from cloison.oci_runtime.bundle import complete_process, with_home
from cloison.oci_runtime.streams import standard_streams, write_pid_file
from cloison.runtime import launch
from cloison.runtime.compile import plan_exec
from cloison.runtime.facts import read_facts
from cloison.runtime.monitor import MonitorPlan
from cloison.runtime.process import UNCONFINED, Filter, plan_machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.oci.runtime import Process
    from cloison.oci_runtime.agent import Agent
    from cloison.oci_runtime.containers import Container
    from cloison.runtime.session import Session


class Wishes(Record):
    """What goes with the process object."""

    pid_file: str = ""
    seccomp: Filter = UNCONFINED
    agent: Agent | None = None  # whom the filter asks
    preserve: tuple[int, ...] = ()  # descriptors that are handed on
    waits: bool = False  # we stay, as its parent
    below: str = ""  # a control group below the container's
    linux: Linux = Linux()  # the container's


def execute(container: Container, process: Process, *, wishes: Wishes, console: int) -> tuple[int, int]:
    """Its pid and start time; on return the command has been executed. Raises: LaunchFailed and its kinds, NotFound."""
    placement = placement_of(container, below=wishes.below)
    pidfd = proc.open_pidfd(container.pid, container.pid_started)
    root = os.open(f"/proc/{container.pid}/root", os.O_PATH | os.O_CLOEXEC) if container.mounted_in else -1
    try:
        ops = plan_exec(
            with_home(complete_process(process), f"/proc/{container.pid}/root"),
            pidfd=pidfd,
            placement=placement.replace(stats=()),
            stdio=standard_streams(terminal=process.terminal),
            facts=read_facts(),
            monitor=MonitorPlan(absent=True, sibling=wishes.waits),
            seccomp=wishes.seccomp,
            keyring=container.id,
            user_namespace=has_own_users(container.pid),
            root=root,
            shared=_shared(container.pid) if os.geteuid() else (),
            console=console,
            preserve=wishes.preserve,
            machine=plan_machine(wishes.linux),
        )
        session = launch.launch(ops, id=container.id)
    finally:
        os.close(pidfd)
        if root >= 0:
            os.close(root)
    try:
        started = _await_execution(session, container=container, agent=wishes.agent)
    except BaseException:
        session.close()
        raise
    if wishes.pid_file:
        write_pid_file(wishes.pid_file, session.pid)
    session.leave()  # only now somebody else can wait for it: the number was its own until here
    return session.pid, started


def placement_of(container: Container, *, below: str = "") -> cgroups.Placement:
    """The container's groups, or those below them where they exist. Raises: NotFound."""
    if not container.cgroup:
        return cgroups.Placement()
    placement = cgroups.find(cgroups.read_layout(), container.cgroup)
    if not below:
        return placement.replace(into=_leaf(placement.into, container))

    def deeper(directory: str) -> str:
        found = f"{directory}/{below}"
        return found if directory and os.path.isdir(found) else directory

    join, into = tuple(map(deeper, placement.join)), deeper(placement.into)
    if (join, into) == (placement.join, placement.into):
        raise NotFound(f"control group {container.cgroup}/{below} does not exist")
    return placement.replace(join=join, into=into)


def _leaf(group: str, container: Container) -> str:
    """The version 2 group, or the first process's own below it.

    A group that passes controllers on takes no processes (cgroup-v2.rst, "No Internal Process Constraint"); a service
    manager inside has made one of its own.
    """
    if not group or not read_text(f"{group}/cgroup.subtree_control").strip():
        return group
    lines = read_text(f"/proc/{container.pid}/cgroup").splitlines()
    own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "")
    below = own.partition(f"/{container.cgroup}/")[2]
    return f"{group}/{below}" if below else group


def _await_execution(session: Session, *, container: Container, agent: Agent | None) -> int:
    """Its start time. Raises: LaunchFailed and its kinds."""
    started = 0
    while True:
        message = session.receive()
        if message.error is not None:
            raise message.error
        if message.kind == "created":
            started = started_at(message.pid)
        if message.kind == "listener" and agent is not None:
            agent.hand_over(message.fd, container=container, pid=session.pid, status="running")
        if message.kind == "started":
            return started
        if message.kind in ("closed", "exited"):
            raise Internal("the command could not be started", why="it ended without a word")


def started_at(pid: int) -> int:
    """The start time of a process that was just made, 0 when it has ended already."""
    try:
        return proc.start_time(pid)
    except NotFound:
        return 0  # the message that says so is next


def _shared(pid: int) -> tuple[str, ...]:
    """The kinds of namespaces that this process has in common with us."""
    kinds = os.listdir("/proc/self/ns")
    return tuple(kind for kind in kinds if os.path.samefile(f"/proc/{pid}/ns/{kind}", f"/proc/self/ns/{kind}"))


def has_own_users(pid: int) -> bool:
    """Whether its user namespace is not ours: only then it can be joined (setns(2))."""
    theirs, ours = os.stat(f"/proc/{pid}/ns/user"), os.stat("/proc/self/ns/user")
    return theirs.st_ino != ours.st_ino
