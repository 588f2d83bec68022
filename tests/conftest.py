"""How tests are shared out when several processes run them (`make test` has two), and what many begin with.

Tests of one folder stay in one process, so that what its fixtures start (Spark, Kafka, a trained model) is
started once; tests that lie in no folder stay together by file. The long folders begin first.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pytest

# Feast sets it as it is imported, and what starts these processes has imported it: counts would be kept in
# files that all registries share. In the gateway the client is imported before Feast (`serving.gateway`).
for name in ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR"):
    os.environ.pop(name, None)
import prometheus_client  # noqa: E402, F401

TESTS: Final = Path(__file__).parent
LONGEST_FIRST: Final = ("end_to_end", "integration", "training", "streams", "tutorial")


def _part(node_id: str) -> str:
    """`integration`, `serving/gateway` or `test_signing.py`, of a test's id."""
    parts = PurePosixPath(node_id.partition("::")[0]).relative_to(TESTS.name).parts
    return parts[0] if parts[0] != "serving" else "/".join(parts[:2])


@pytest.fixture(scope="session")
def new_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's own database as it is when new: it takes seconds to make, and a copy of it none."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


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
