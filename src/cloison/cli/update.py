"""``update``: other limits for containers that exist."""

from __future__ import annotations

from cloison.cli.lifecycle import for_each
from cloison.cli.limits import resources
from cloison.cli.parser import Flag, UsageError, Verb
from cloison.cli.run_flags import CREATE_FLAGS
from cloison.model.container import Resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.cli.call import Call

_LIMITS = (
    "blkio-weight", "cpu-period", "cpu-quota", "cpu-shares", "cpus", "cpuset-cpus", "cpuset-mems", "memory",
    "memory-reservation", "memory-swap",
)  # fmt: skip


def update(call: Call) -> int:
    containers, changes = call.engine.containers, resources(call, exists=True)
    if changes == Resources():
        raise UsageError("you must provide one or more flags when using this command")

    def act(name: str) -> str:
        containers.update(name, changes)
        return name

    return for_each(call.words, act)


UPDATE = Verb(
    "update", update, summary="Update configuration of one or more containers",
    usage="[OPTIONS] CONTAINER [CONTAINER...]", least=1, later="cpu-rt-period cpu-rt-runtime kernel-memory restart",
    flags=(
        *(flag for flag in CREATE_FLAGS if flag.name in _LIMITS),
        Flag("--pids-limit", "int", help="Tune container pids limit (set -1 for unlimited)"),
    ),
)  # fmt: skip
