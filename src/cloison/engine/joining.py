"""One more command in a container that runs: the same walls, another process."""

from __future__ import annotations

import os

from cloison.engine import specs
from cloison.engine.launching import shows_terminal
from cloison.errors import Internal
from cloison.linux import cgroups, proc
from cloison.runtime import launch
from cloison.runtime.compile import plan_exec
from cloison.runtime.facts import read_facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.model.container import ContainerRecord, ExecSpec, Stdio
    from cloison.model.settings import Settings
    from cloison.runtime.session import Session
    from cloison.store.containers import Running


def exec_in(record: ContainerRecord, running: Running, *, spec: ExecSpec, settings: Settings, stdio: Stdio) -> Session:
    """Run it; on return it has been executed.

    Raises: LaunchFailed and its kinds, NotFound when the container ended meanwhile.
    """
    facts = read_facts()
    process, seccomp = specs.build_exec(record, spec, settings=settings, facts=facts, stdio=stdio)
    pidfd = proc.open_pidfd(running.pid, running.pid_started)
    try:
        ops = plan_exec(
            process,
            pidfd=pidfd,
            placement=cgroups.find(cgroups.read_layout(), running.cgroup).replace(stats=()),
            stdio=stdio,
            facts=facts,
            seccomp=seccomp,
            keyring=record.id,
        )
        session = launch.launch(ops, id=record.id, attached=shows_terminal(stdio))
    finally:
        os.close(pidfd)
    try:
        _await_execution(session)
    except BaseException:
        session.close()
        raise
    return session


def _await_execution(session: Session) -> None:
    while True:
        message = session.receive()
        if message.error is not None:
            raise message.error
        if message.kind in ("started", "exited"):
            return
        if message.kind == "closed":
            raise Internal("the command could not be started", why="its monitor ended without a word")
