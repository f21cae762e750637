"""Hooks that run in the container's namespaces: each is one more process there, made as an exec is made (config.md).

``createContainer``: everything is mounted, the root is not yet changed, so the program is the host's; with our rights.
``startContainer``: the program is the container's, so it gets the walls of the container's own process.
"""

from __future__ import annotations

import os
import time

from cloison.errors import Internal
from cloison.linux import proc
from cloison.linux.capabilities import names_in
from cloison.linux.command import Outcome, open_streams, read_streams
from cloison.linux.seccomp_flags import NEW_LISTENER, WAIT_KILLABLE_RECV
from cloison.model.container import Stdio
from cloison.oci.runtime import Capabilities, Process
from cloison.oci_runtime.executing import has_own_users, placement_of, started_at
from cloison.oci_runtime.hooks import default_environment
from cloison.runtime import launch
from cloison.runtime.compile import plan_exec
from cloison.runtime.facts import HostFacts, read_facts
from cloison.runtime.process import UNCONFINED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.oci.runtime import Hook
    from cloison.oci_runtime.containers import Container
    from cloison.oci_runtime.hooks import Runner
    from cloison.runtime.process import Filter
    from cloison.runtime.session import Session


def of_creation(container: Container) -> Runner:
    """Carries out a ``createContainer`` hook: as root of the container's user namespace, or as ourselves."""
    facts = read_facts()
    rights = HostFacts().permitted if has_own_users(container.pid) else facts.permitted
    held = names_in(rights & ((2 << facts.last_capability) - 1))
    everything = Capabilities(bounding=held, effective=held, permitted=held, inheritable=(), ambient=())
    base = Process(args=("/",), cwd=container.bundle, capabilities=everything, no_new_privileges=False)
    environment = default_environment()

    def run(hook: Hook, state: bytes, *, outputs: tuple[int, int]) -> Outcome:
        process = base.replace(args=hook.args or (hook.path,), env=hook.env or environment)
        return _run(process, hook, container=container, facts=facts, state=state, outputs=outputs, seccomp=UNCONFINED)

    return run


def of_start(container: Container, process: Process, *, seccomp: Filter) -> Runner:
    """Carries out a ``startContainer`` hook: as the container's process would be, but for its share of the machine."""
    facts = read_facts()
    base = process.replace(terminal=False, scheduler=None, io_priority=None)
    # Nobody answers for a hook: a call that the filter would ask about does not exist for it (seccomp_unotify(2))
    seccomp = seccomp.replace(flags=seccomp.flags & ~(NEW_LISTENER | WAIT_KILLABLE_RECV))

    def run(hook: Hook, state: bytes, *, outputs: tuple[int, int]) -> Outcome:
        changed = base.replace(args=hook.args or (hook.path,), env=hook.env or process.env)
        return _run(changed, hook, container=container, facts=facts, state=state, outputs=outputs, seccomp=seccomp)

    return run


def inner_pid(pid: int) -> int:
    """The number of a process of ours in its own pid namespace (proc(5), NSpid)."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return pid


def _run(
    process: Process, hook: Hook, *, container: Container, facts: HostFacts, state: bytes, outputs: tuple[int, int],
    seccomp: Filter,
) -> Outcome:  # fmt: skip
    streams = open_streams(state, outputs)
    pidfd = proc.open_pidfd(container.pid, container.pid_started)
    try:
        ops = plan_exec(
            process, pidfd=pidfd, placement=placement_of(container).replace(stats=()),
            stdio=Stdio(stdin=f"fd:{streams[0]}", stdout=f"fd:{streams[1]}", stderr=f"fd:{streams[2]}"),
            facts=facts, seccomp=seccomp, user_namespace=has_own_users(container.pid), file=hook.path,
        )  # fmt: skip
        with launch.launch(ops, id=container.id) as session:
            code, in_time = _wait(session, timeout_s=hook.timeout_s)
        return Outcome(code=code, in_time=in_time, **read_streams(streams))
    finally:
        os.close(pidfd)
        for fd in streams:
            os.close(fd)


def _wait(session: Session, *, timeout_s: float) -> tuple[int, bool]:
    """Its end as `Outcome` has it. Raises: LaunchFailed and its kinds."""
    started, in_time = 0, True
    end = time.monotonic() + timeout_s if timeout_s else None
    while session.exit is None:
        try:
            left = max(0.0, end - time.monotonic()) if end and in_time else None
            message = session.receive(left)
        except TimeoutError:
            in_time = False
            proc.send_signal(session.pid, started, 9)
            continue
        if message.error is not None:
            raise message.error
        if message.kind == "created":
            started = started_at(message.pid)
        if message.kind == "closed":
            raise Internal("the hook's end is not known", why="its monitor was killed")
    return -session.exit.signal or session.exit.exit_code, in_time
