"""Plans of starts that this process has made before: the same words give the same plan, but for the id in it.

A program that runs one command after another asks for the same container again and again. Working its plan out takes a
tenth of the whole start; putting another id into a known one takes next to nothing. Kept are a few, and of throw-away
containers alone: their files are the image's, so what was read from them (users, groups) holds as long as the image id.
"""

from __future__ import annotations

from cloison.linux.cgroups import Group
from cloison.model.record import Record
from cloison.runtime.launch import Repeated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable

    from cloison.model.container import ContainerRecord

_MOST = 32

# A cache, not state: whatever is in it could be worked out again. Single dict operations are atomic in CPython.
_known: dict[Hashable, Template] = {}


class Template(Record):
    """One start's plan and limits; another container's id can be put in."""

    plan: Repeated
    group: Group


def is_repeatable(record: ContainerRecord) -> bool:
    """Whether the plan depends on nothing but the record and the host's facts: no file of the host, no neighbour."""
    spec = record.spec
    if not spec.auto_remove or spec.mounts or spec.devices or spec.privileged or record.volumes:
        return False
    return not any(mode.startswith("container:") for mode in (spec.network, spec.pid_mode, spec.ipc_mode))


def find(key: Hashable) -> Template | None:
    return _known.get(key)


def remember(key: Hashable, template: Template) -> None:
    while len(_known) >= _MOST:
        _known.pop(next(iter(_known)), None)
    _known[key] = template
