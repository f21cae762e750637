"""``start``: release the first process, and learn whether its command could be executed."""

from __future__ import annotations

import os

from cloison.errors import CloisonError, Conflict, Internal, InvalidArgument
from cloison.runtime.session import check_report, connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloison.oci.config_json import Config
    from cloison.oci_runtime.agent import Agent
    from cloison.oci_runtime.containers import Container, Containers
    from cloison.oci_runtime.log import Log

_REFUSALS = {
    "creating": "it is still being created",
    "running": "cannot start an already running container",
    "paused": "cannot start an already running container",
    "stopped": "cannot start a container that has stopped",
}


def start(containers: Containers, container_id: str, *, log: Log, cache: str) -> None:
    """On return the command has been executed and the poststart hooks have run. ``cache``: of compiled filters.

    Raises: NotFound, Conflict, LaunchFailed and its kinds.
    """
    with containers.lock(container_id):
        container = containers.load(container_id)
        status = containers.status(container)
        if status != "created":
            raise Conflict(f"cannot start container {container_id}", why=_REFUSALS[status])
        if not container.has_process:
            raise InvalidArgument(f"cannot start container {container_id}", why="its config.json has no process")
        if "start" in container.reads_config:
            _start_with_hooks(containers, container, log=log, cache=cache)
        else:
            _release(containers, container, agent=None)


def _start_with_hooks(containers: Containers, container: Container, *, log: Log, cache: str) -> None:
    from cloison.oci.config_json import parse_config
    from cloison.oci_runtime import ending
    from cloison.oci_runtime.hooks import run_hooks

    config = parse_config(containers.config(container.id), bundle=container.bundle)
    hooks = config.spec.hooks

    def run(work: Callable[[], None]) -> None:
        """runtime.md, "Lifecycle": if a hook fails, the container is stopped and destroyed."""
        try:
            work()
        except CloisonError:
            ending.destroy(containers, container, poststop=hooks.poststop, log=log)
            raise

    if hooks.start_container:
        run(lambda: _run_inner(container, config, cache=cache))
    _release(containers, container, agent=_agent(config))
    run(lambda: run_hooks("poststart", hooks.poststart, container=container, status="running"))


def _run_inner(container: Container, config: Config, *, cache: str) -> None:
    """The startContainer hooks."""
    from cloison.oci_runtime.bundle import complete_process, seccomp_filter, with_home
    from cloison.oci_runtime.hooks import run_hooks
    from cloison.oci_runtime.inner_hooks import inner_pid, of_start

    process = with_home(complete_process(config.spec.process), f"/proc/{container.pid}/root")
    runner = of_start(container, process, seccomp=seccomp_filter(config, cache=cache))
    run_hooks(
        "startContainer", config.spec.hooks.start_container, container=container, status="created", runner=runner,
        pid=inner_pid(container.pid),
    )  # fmt: skip


def _agent(config: Config) -> Agent | None:
    """Who is to be told of the filter now; one that was loaded at create has been told of."""
    if not isinstance(config.seccomp, dict):
        return None
    from cloison.oci_runtime.bundle import complete_process, connect_agent
    from cloison.runtime.process import is_filtered_last

    return connect_agent(config) if is_filtered_last(complete_process(config.spec.process)) else None


def _release(containers: Containers, container: Container, *, agent: Agent | None) -> None:
    socket = containers.path(container.id, "start")
    with connect(socket, id=container.id) as session:
        session.start()
        while True:
            message = session.receive()
            if message.kind == "closed":  # by the execve, or by the end
                break
            if message.kind == "listener" and agent is not None:
                agent.hand_over(message.fd, container=container, pid=container.pid, status="created")
                continue
            if message.kind != "waiting":
                raise Internal("the container could not be started", why=f"it said {message.kind!r}")
    report = containers.path(container.id, "report")
    check_report(report)
    for path in (report, socket):
        os.unlink(path)
