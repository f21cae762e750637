"""The end of a container: signals, ``delete``, and what must not be left behind."""

from __future__ import annotations

from cloison.errors import CloisonError, Conflict, NotFound
from cloison.linux import cgroups, proc
from cloison.oci_runtime.containers import Container, Containers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.oci.runtime import Hook
    from cloison.oci_runtime.log import Log

_SIGKILL = 9
_END_TIMEOUT_S = 10.0


def kill_first(container: Container) -> None:
    """SIGKILL to the first process, whatever holds it."""
    if not container.pid:
        return
    try:
        proc.send_signal(container.pid, container.pid_started, _SIGKILL)
    except PermissionError:  # an AppArmor profile that lets no signal in; the control group asks no security module
        if not container.cgroup:
            raise
        cgroups.kill(cgroups.read_layout(), container.cgroup)
    let_die(container)


def let_die(container: Container) -> None:
    """On version 1 not even SIGKILL reaches the frozen, whoever froze them."""
    if not container.cgroup:
        return
    layout = cgroups.read_layout()
    if cgroups.is_frozen(layout, container.cgroup):
        cgroups.freeze(layout, container.cgroup, frozen=False)
    if proc.is_alive(container.pid, container.pid_started):
        cgroups.leave_foreign_freezer(layout, container.cgroup, pid=container.pid)


def delete(containers: Containers, container_id: str, *, force: bool, log: Log) -> None:
    """Raises: NotFound (never with ``force``), Conflict when it is not stopped."""
    try:
        lock = containers.lock(container_id)
    except NotFound:
        if force:
            return
        raise
    with lock:
        try:
            container = containers.load(container_id)
        except NotFound:  # a crash before the record was written
            if not force:
                raise
            containers.remove(container_id)
            return
        status = containers.status(container)
        if status in ("running", "paused", "creating") and not force and container.pid:
            raise Conflict(f"cannot delete container {container_id} that is not stopped", why=status)
        destroy(containers, container, poststop=_poststop(containers, container), log=log)


def destroy(containers: Containers, container: Container, *, poststop: Sequence[Hook], log: Log) -> None:
    """Kill what runs and take everything away; the lock is held. Raises: Unavailable, Denied."""
    kill_first(container)
    if container.pid:
        proc.wait_for_end(container.pid, container.pid_started, timeout_s=_END_TIMEOUT_S)
    clean_up(containers, container, poststop=poststop, log=log)


def _poststop(containers: Containers, container: Container) -> tuple[Hook, ...]:
    if "delete" not in container.reads_config:
        return ()
    from cloison.oci.config_json import parse_config

    try:
        config = parse_config(containers.config(container.id), bundle=container.bundle)
    except (CloisonError, ValueError):
        return ()  # lost in a crash: there is nothing to run
    hooks: tuple[Hook, ...] = config.spec.hooks.poststop
    return hooks


def _stop_unit(container: Container) -> None:
    from cloison.oci_runtime import systemd_unit

    if container.cgroup:  # systemd would ask them to end, and wait
        cgroups.kill(cgroups.read_layout(), container.cgroup)
    systemd_unit.stop(container.unit, runtime_directory=container.session)


def clean_up(containers: Containers, container: Container, *, poststop: Sequence[Hook], log: Log) -> None:
    """Control group, record, then the hooks ("after the container is deleted"). Raises: Unavailable, Denied."""
    if container.unit:
        _stop_unit(container)
    if container.cgroup:
        cgroups.remove(cgroups.read_layout(), container.cgroup)
    if container.mounted_in:
        from cloison.oci_runtime.joined_mounts import take_off

        take_off(container)
    if container.rdt:
        from cloison.linux import resctrl

        for directory in container.rdt:
            resctrl.remove(directory)
    containers.remove(container.id)
    if poststop:
        from cloison.oci_runtime.hooks import run_poststop

        run_poststop(poststop, container=container, log=log)
