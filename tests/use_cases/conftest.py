"""One Spark session for what transforms make of rows that their tests write: no table is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from airloop.settings import REPOSITORY, Settings
from spark_jobs.session import open_session


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    state: Path = tmp_path_factory.mktemp("state")
    (state / "jars").symlink_to(REPOSITORY / ".airloop" / "jars")
    session = open_session(Settings(state_dir=state), "use cases")
    yield session
    session.stop()
