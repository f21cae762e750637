"""``mounts add|remove``: crun's way to change the mounts of a container that runs.

The launcher's child enters the container's namespaces, mounts, and ends; what is mounted was opened out here before.
"""

from __future__ import annotations

import os

from cloison.errors import Conflict, InvalidArgument, Unsupported
from cloison.linux import proc
from cloison.oci.config_json import parse_config
from cloison.oci.config_mounts import parse_mount
from cloison.oci.fields import Fields
from cloison.oci_runtime.containers import Containers
from cloison.oci_runtime.options import Call, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.model.mount import Mount
    from cloison.oci.runtime import Linux
    from cloison.runtime.plan import Op


def _mounts(call: Call) -> int:
    from cloison.oci_runtime.trees import Trees
    from cloison.runtime.plan import op
    from cloison.runtime.rootfs import plan_mount

    action, container_id, path = call.words
    if action not in ("add", "remove"):
        raise InvalidArgument(f"unknown action {action[:64]!r}", hint="use add or remove")
    containers = Containers(call.root)
    container = containers.load(container_id)
    with containers.lock(container_id):
        if containers.status(container) not in ("created", "running", "paused"):
            raise Conflict(f"cannot change the mounts of container {container_id}", why="container not running")
        if container.mounted_in:
            raise Unsupported("cannot change the mounts of a container in somebody else's mount namespace")
        config = parse_config(containers.config(container_id), bundle=container.bundle)
        mounts = _read(path, bundle=os.getcwd(), linux=config.spec.linux)
        if action == "remove":
            ops = tuple(op("unmount", mount.target) for mount in reversed(mounts))
            _inside(ops, pid=container.pid, started=container.pid_started)
            return 0
        from cloison.oci_runtime.fitting import with_mappings

        spec = config.spec.replace(mounts=mounts, linux=with_mappings(config.spec.linux).replace(devices=()))
        with Trees(spec, scratch="", everything=True) as trees:
            ops = tuple(map(plan_mount, trees.prepare().mounts))
            _inside(ops, pid=container.pid, started=container.pid_started)
    return 0


def _read(path: str, *, bundle: str, linux: Linux) -> tuple[Mount, ...]:
    from cloison.oci_runtime.documents import read_document

    fields = Fields({"mounts": read_document(path, name="mounts file")[1]}, document="mounts file")
    return fields.objects("mounts", lambda mount: parse_mount(mount, bundle=bundle, linux=linux), limit=4096)


def _inside(ops: tuple[Op, ...], *, pid: int, started: int) -> None:
    """Carry these out in the mount namespace of that process. Raises: LaunchFailed, NotFound."""
    from cloison.oci_runtime.executing import has_own_users
    from cloison.oci_runtime.joined_mounts import carry_out
    from cloison.runtime.plan import op

    has_users = has_own_users(pid)
    pidfd = proc.open_pidfd(pid, started)
    try:
        join = op("join-namespaces", pidfd, *(("mnt", "user") if has_users else ("mnt",)))
        carry_out((join, *((op("become", 0, 0),) if has_users else ()), *ops))
    finally:
        os.close(pidfd)


MOUNTS = Verb("mounts", _mounts, usage="[add|remove] CONTAINER FILE", least=3, most=3)
