"""How the tests are shared out when several processes run them (`make test` has two).

Tests of one folder stay in one process, so that what its fixtures start (Spark, Kafka, a trained model) is
started once; tests that lie in no folder stay together by file. The long folders begin first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parent
LONGEST_FIRST: Final = ("end_to_end", "integration", "training", "streams")


def _part(item: pytest.Item) -> str:
    first = item.path.relative_to(TESTS).parts[0]
    return first if first != "serving" else "/".join(item.path.relative_to(TESTS).parts[:2])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name each test's group, and put the long ones first."""
    order = {name: number for number, name in enumerate(LONGEST_FIRST)}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_part(item)))
    items.sort(key=lambda item: order.get(_part(item), len(order)))
