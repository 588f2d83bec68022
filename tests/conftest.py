"""How the tests are shared out when several processes run them (`make test` has two).

Tests of one folder stay in one process, so that what its fixtures start (Spark, Kafka, a trained model) is
started once; tests that lie in no folder stay together by file. The long folders begin first.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, Final

import pytest

TESTS: Final = Path(__file__).parent
LONGEST_FIRST: Final = ("end_to_end", "integration", "training", "streams")


def _part(node_id: str) -> str:
    """`integration`, `serving/gateway` or `test_signing.py`, of a test's id."""
    parts = PurePosixPath(node_id.partition("::")[0]).relative_to(TESTS.name).parts
    return parts[0] if parts[0] != "serving" else "/".join(parts[:2])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long folders first."""
    order = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(_part(item.nodeid), len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One folder, one process. (xdist's own groups, 3.8, find no ids that they know in pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class ByFolder(LoadScopeScheduling):  # type: ignore[misc] # untyped
        def _split_scope(self, nodeid: str) -> str:
            return _part(nodeid)

    return ByFolder(config, log)
