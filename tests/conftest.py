"""Order of the tests: what answers in a second first, what needs a cluster and minutes last.

A failure in a pure function then shows before the machine has trained anything.
"""

import pytest

TIERS = ("slow", "api", "e2e", "load")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by the dearest marker of each test; the order within a tier stays."""

    def tier(item: pytest.Item) -> int:
        return max((TIERS.index(mark.name) + 1 for mark in item.iter_markers() if mark.name in TIERS), default=0)

    items.sort(key=tier)
