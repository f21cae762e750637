"""From what was asked to a container that exists: the image found, the words resolved, the intention on disk.

Order matters for crashes. The run directory (with its lock held) comes first, the name last: a container whose name
points to it is whole, anything else with a free lock is the rest of a crash and is removed by whoever sees it.
"""

from __future__ import annotations

import os
import time

from cloison.engine import names
from cloison.errors import Conflict, InvalidArgument
from cloison.model.container import ContainerRecord
from cloison.snapshots.drivers import open_snapshots
from cloison.store.containers import ContainerStore, Running
from cloison.volumes import mounts as volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.model.container import ContainerSpec
    from cloison.model.image import Image
    from cloison.model.settings import Settings
    from cloison.store.locks import Lock

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def create_container(
    spec: ContainerSpec, image: Image, *, settings: Settings, durable: bool, starts: bool = False
) -> tuple[ContainerRecord, Lock]:
    """Make a container that does not run yet; its operation lock is held on return.

    ``starts``: it is to be started at once; one that is thrown away is no container of anybody's until it runs.
    Raises: InvalidArgument (no command, bad name), Conflict (name in use), Unavailable (disk full).
    """
    if spec.name:
        names.check_name(spec.name)
    store = ContainerStore(settings)
    container_id = os.urandom(32).hex()
    record = resolve(spec, image, container_id=container_id)
    record = record.replace(name=spec.name or names.random_name())
    lock = store.begin(container_id)
    try:
        store.save(record, durable=durable)
        open_snapshots(settings).prepare(container_id, record.layers, volatile=spec.auto_remove)
        if starts and spec.auto_remove:
            begin_run(container_id, settings=settings)  # before it is whole: after a crash it is the rest of a run
        return _with_name(record, store, durable=durable), lock
    except BaseException:
        discard(record, settings=settings)
        lock.release()
        raise


def begin_run(container_id: str, *, settings: Settings) -> Running:
    """Note that a run begins: found without a monitor, it is over."""
    running = Running(cgroup=f"{settings.cgroup_parent}/{container_id}", started_ns=time.time_ns())
    ContainerStore(settings).save_running(container_id, running)
    return running


def resolve(spec: ContainerSpec, image: Image, *, container_id: str) -> ContainerRecord:
    """What the image says and what was asked, brought together (image-spec config.md, "Conversion"). Pure."""
    config = image.config
    argv = _argv(spec, image)
    if not argv:
        raise InvalidArgument("no command specified", hint="the image names none: give one after the image")
    declared = [path for path in config.volumes if path not in {request.target for request in spec.mounts}]
    return ContainerRecord(
        id=container_id,
        name=spec.name,
        created_ns=time.time_ns(),
        spec=spec,
        image_id=image.id,
        argv=argv,
        env=merge_env(config.env, spec.env),
        workdir=spec.workdir or config.workdir or "/",
        user=spec.user or config.user,
        stop_signal=spec.stop_signal or config.stop_signal or "SIGTERM",
        layers=image.layers,
        volumes=tuple(declared),
        labels={**config.labels, **spec.labels},
        exposed_ports=config.exposed_ports,
    )


def _argv(spec: ContainerSpec, image: Image) -> tuple[str, ...]:
    if spec.entrypoint is not None:
        return (*spec.entrypoint, *spec.command)  # an own entrypoint takes the image's Cmd away, as in Docker
    return (*image.config.entrypoint, *(spec.command or image.config.cmd))


def merge_env(base: tuple[str, ...], changes: tuple[str, ...]) -> tuple[str, ...]:
    """``K=V`` replaces or adds in place, a bare ``K`` removes."""
    merged = dict(word.split("=", 1) for word in base if "=" in word)
    for word in changes:
        key, sign, value = word.partition("=")
        if not key:
            raise InvalidArgument(f"invalid environment variable: {word!r}")
        if sign:
            merged[key] = value
        else:
            merged.pop(key, None)
    return tuple(f"{key}={value}" for key, value in merged.items())


def _with_name(record: ContainerRecord, store: ContainerStore, *, durable: bool) -> ContainerRecord:
    """Claim the record's name; one that we chose ourselves gives way to another when it is taken."""
    for attempt in range(100):
        try:
            store.claim_name(record.name, record.id)
            return record
        except Conflict:
            if record.spec.name:
                raise
        record = record.replace(name=names.random_name() + (str(attempt) if attempt > 5 else ""))
        store.save(record, durable=durable)
    raise Conflict("cannot find a free container name", hint="give one with --name")


def discard(record: ContainerRecord, *, settings: Settings, with_volumes: bool = True) -> None:
    """Undo everything a container has on disk, in the order that a crash half-way leaves recognisable."""
    store = ContainerStore(settings)
    snapshots = open_snapshots(settings)
    snapshots.remove(record.id)
    for target in record.volumes if with_volumes else ():
        name = volumes.anonymous_name(record.id, target)
        snapshots.remove_directory(volumes.anonymous_path(settings.data_root, name))
    store.forget(record)
    store.forget_run(record.id)
