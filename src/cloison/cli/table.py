"""Rows in columns, as docker prints them: at least 10 wide, 3 apart, the last column as it comes."""

from __future__ import annotations

from cloison.cli.output import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_WIDTH = 10
PADDING = 3


def render_table(rows: Sequence[Sequence[str]]) -> str:
    """Lines of the table, the headings being the first row; control characters are escaped."""
    cells = [[visible(cell) for cell in row] for row in rows]
    count = max((len(row) for row in cells), default=0)
    widths = [
        max(MIN_WIDTH, max((len(row[column]) for row in cells if column < len(row)), default=0) + PADDING)
        for column in range(count)
    ]
    return "\n".join(_line(row, widths) for row in cells)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
    return "".join([*padded, *row[-1:]])


def shorten(text: str, length: int) -> str:
    """Cut with an ellipsis, which counts (docker's Ellipsis)."""
    return text if len(text) <= length else text[: max(length - 1, 0)] + "…"
