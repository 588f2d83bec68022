"""One week of 2013 through the real jobs: real Spark, Iceberg, Great Expectations and Feast."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from airloop.intervals import Interval
from airloop.settings import REPOSITORY, Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from spark_jobs.session import open_session

WEEK = Interval(datetime(2013, 3, 4, tzinfo=UTC), datetime(2013, 3, 11, tzinfo=UTC))


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    state: Path = tmp_path_factory.mktemp("state")
    (state / "jars").symlink_to(REPOSITORY / ".airloop" / "jars")
    return Settings(state_dir=state)


@pytest.fixture(scope="session")
def spec() -> UseCase:
    return use_case("flight_delay")


@pytest.fixture(scope="session")
def spark(settings: Settings) -> Iterator[SparkSession]:
    session = open_session(settings, "tests")
    yield session
    session.stop()
