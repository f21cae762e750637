"""``start``: release the first process, and learn whether its command could be executed."""

from __future__ import annotations

import os

from cloison.errors import Conflict, Internal, InvalidArgument, LaunchFailed
from cloison.oci.config_json import parse_config
from cloison.oci_runtime import ending
from cloison.oci_runtime.hooks import run_hooks
from cloison.runtime.session import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.oci_runtime.containers import Container, Containers
    from cloison.oci_runtime.log import Log

_REFUSALS = {
    "creating": "it is still being created",
    "running": "cannot start an already running container",
    "paused": "cannot start an already running container",
    "stopped": "cannot start a container that has stopped",
}


def start(containers: Containers, container_id: str, *, log: Log) -> None:
    """On return the command has been executed and the poststart hooks have run.

    Raises: NotFound, Conflict, LaunchFailed and its kinds.
    """
    with containers.lock(container_id):
        container = containers.load(container_id)
        status = containers.status(container)
        if status != "created":
            raise Conflict(f"cannot start container {container_id}", why=_REFUSALS[status])
        if not container.has_process:
            raise InvalidArgument(f"cannot start container {container_id}", why="its config.json has no process")
        _release(containers, container)
        _tell(containers, container, log)


def _release(containers: Containers, container: Container) -> None:
    socket = containers.path(container.id, "start")
    with connect(socket, id=container.id) as session:
        session.start()
        while True:
            message = session.receive()
            if message.error is not None:
                raise message.error
            if message.kind == "closed":  # by the execve
                break
            if message.kind != "waiting":
                raise Internal("the container could not be started", why=f"it said {message.kind!r}")
    os.unlink(socket)


def _tell(containers: Containers, container: Container, log: Log) -> None:
    """The poststart hooks. runtime.md, "Lifecycle": if one fails, the container is stopped and destroyed."""
    config = parse_config(containers.config(container.id), bundle=container.bundle)
    hooks = config.spec.hooks
    try:
        run_hooks("poststart", hooks.poststart, container=container, status="running")
    except LaunchFailed:
        ending.destroy(containers, container, poststop=hooks.poststop, log=log)
        raise
