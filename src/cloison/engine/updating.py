"""Changes of a container that exists: its name; its limits, at once where it runs and for every start from now on."""

from __future__ import annotations

from contextlib import contextmanager

from cloison.errors import InvalidArgument
from cloison.linux import cgroups
from cloison.model.container import Resources
from cloison.store.containers import ContainerStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloison.model.container import ContainerRecord
    from cloison.model.settings import Settings

_MEMORY = ("memory_bytes", "memory_swap_bytes")


def merged(now: Resources, changes: Resources) -> Resources:
    """``now`` with every limit that ``changes`` sets. Raises: InvalidArgument when two of them contradict."""
    both = now.replace(**_set_fields(changes))
    memory, swap = both.memory_bytes, both.memory_swap_bytes
    if swap is not None and swap > 0:
        if memory is None:
            raise InvalidArgument("--memory-swap needs --memory", hint="the value counts memory plus swap")
        if memory > swap and changes.memory_swap_bytes is None:
            raise InvalidArgument(
                "Memory limit should be smaller than already set memoryswap limit",
                hint="update the memoryswap at the same time",
            )
        if memory > swap:
            raise InvalidArgument(
                "minimum memoryswap limit should be larger than memory limit", hint="it counts memory plus swap"
            )
    return both


def update(container_id: str, changes: Resources, *, settings: Settings) -> None:
    """The kernel first, then the record: a limit that cannot be enforced is in neither.

    Raises: NotFound; InvalidArgument, Unsupported, Denied; Conflict when more is in use than the new limit allows.
    """
    store = ContainerStore(settings)
    layout = cgroups.read_layout()
    with _changing(container_id, store) as record:
        resources = merged(record.spec.resources, changes)
        running = store.load_running(record.id)
        if running is not None and running.pid and store.monitor_lives(record.id):
            if any(getattr(changes, field) is not None for field in _MEMORY):
                changes = changes.replace(**{field: getattr(resources, field) for field in _MEMORY})
            cgroups.update(layout, running.cgroup, resources=changes)
        else:
            cgroups.plan_limits(layout, resources=resources)
        store.save(record.replace(spec=record.spec.replace(resources=resources)), durable=True)


def rename(container_id: str, new: str, *, settings: Settings) -> None:
    """A name that is not yet in the record is nobody else's while the lock is held. Raises: NotFound, Conflict."""
    store = ContainerStore(settings)
    with _changing(container_id, store) as record:
        store.claim_name(new, record.id)
        store.save(record.replace(name=new), durable=True)
        store.release_name(record.name, record.id)


@contextmanager
def _changing(container_id: str, store: ContainerStore) -> Iterator[ContainerRecord]:
    """The record as it is now, whoever changed it while we waited for its lock, which is held. Raises: NotFound."""
    with store.enter(container_id):
        auto_remove = False
        try:
            record = store.load(container_id)
            auto_remove = record.spec.auto_remove
            yield record
        finally:
            if not auto_remove and store.load_running(container_id) is None:
                store.forget_run(container_id)


def _set_fields(resources: Resources) -> dict[str, object]:
    unset = Resources()
    fields = {field: getattr(resources, field) for field in Resources._fields}
    return {field: value for field, value in fields.items() if value != getattr(unset, field)}
