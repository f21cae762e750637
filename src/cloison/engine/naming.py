"""Short names: what else they may mean, by registries.conf. Read only where a name is not docker.io's here."""

from __future__ import annotations

from cloison.images.reach import Reach
from cloison.model.reference import is_short, parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.model.settings import Settings


def other_names(settings: Settings, text: str) -> Sequence[str]:
    """Whole references, other than docker.io's, that a short name may stand for. Raises: InvalidArgument."""
    if not is_short(text):
        return ()
    usual = parse_reference(text)
    return [found.canonical for found in Reach(settings).meanings(text) if found != usual]
