"""One Spark session for the audit's own parts, on rows made here: no table is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from airloop.settings import REPOSITORY, Settings
from spark_jobs.session import open_session


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    state: Path = tmp_path_factory.mktemp("state")
    (state / "jars").symlink_to(REPOSITORY / ".airloop" / "jars")
    return Settings(state_dir=state)


@pytest.fixture(scope="session")
def spark(settings: Settings) -> Iterator[SparkSession]:
    session = open_session(settings, "auditing")
    yield session
    session.stop()
