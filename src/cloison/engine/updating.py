"""Other limits for a container that exists: at once where it runs, and for every start from now on."""

from __future__ import annotations

from cloison.errors import InvalidArgument, NotFound
from cloison.linux import cgroups
from cloison.model.container import Resources
from cloison.store.containers import ContainerStore

TYPE_CHECKING = False
if TYPE_CHECKING:
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


def update(record: ContainerRecord, changes: Resources, *, settings: Settings) -> None:
    """The kernel first, then the record: a limit that cannot be enforced is in neither.

    Raises: InvalidArgument, Unsupported, Denied; Conflict when more is in use than the new limit allows.
    """
    store = ContainerStore(settings)
    layout = cgroups.read_layout()
    with store.enter(record.id):
        try:
            record = store.load(record.id)  # as it is now: others may have changed it while we waited for the lock
        except NotFound:
            store.forget_run(record.id)
            raise
        resources = merged(record.spec.resources, changes)
        running = store.load_running(record.id)
        if running is not None and running.pid and store.monitor_lives(record.id):
            if any(getattr(changes, field) is not None for field in _MEMORY):
                changes = changes.replace(**{field: getattr(resources, field) for field in _MEMORY})
            cgroups.update(layout, running.cgroup, resources=changes)
        else:
            cgroups.plan_limits(layout, resources=resources)
        store.save(record.replace(spec=record.spec.replace(resources=resources)), durable=True)
        if running is None and not record.spec.auto_remove:
            store.forget_run(record.id)


def _set_fields(resources: Resources) -> dict[str, object]:
    unset = Resources()
    fields = {field: getattr(resources, field) for field in Resources._fields}
    return {field: value for field, value in fields.items() if value != getattr(unset, field)}
