"""JSON for people and scripts: compact lines, or indented arrays as Docker's ``inspect``."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def dumps(value: object) -> str:
    """One line without blanks, text as it is."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def dumps_indented(value: Sequence[object] | Mapping[str, object]) -> str:
    """Indented by four, as Docker's."""
    return json.dumps(value, indent=4, ensure_ascii=False)
