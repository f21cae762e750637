"""For every test: time limits and order. Unit tests come first, so that a typo is told before a container is run."""

from __future__ import annotations

from pathlib import Path

import pytest

ORDER = ("house", "unit", "contract", "integration", "conformance")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        room = item.path.relative_to(tests).parts[0]
        return ORDER.index(room) if room in ORDER else len(ORDER)

    items.sort(key=rank)  # stable: files keep their order inside a room
