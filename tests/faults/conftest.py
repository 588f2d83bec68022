"""One Spark session and one published year for all faults: history is what makes most of them visible.

Of the module, not the whole run: a process has one session, and the next tests want another.
"""

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
from spark_jobs.clean import clean
from spark_jobs.ingest import ingest
from spark_jobs.session import open_session
from spark_jobs.tables import CLEAN, fast_forward
from tests.faults.cases import faulty

HISTORY = Interval(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 12, 30, tzinfo=UTC))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    state: Path = tmp_path_factory.mktemp("state")
    (state / "jars").symlink_to(REPOSITORY / ".airloop" / "jars")
    return Settings(state_dir=state)


@pytest.fixture(scope="module")
def spark(settings: Settings) -> Iterator[SparkSession]:
    session = open_session(settings, "faults")
    yield session
    session.stop()


@pytest.fixture(scope="module")
def published(spark: SparkSession, settings: Settings) -> UseCase:
    """The use case with the undamaged year on `main` of its clean tables."""
    spec = use_case("flight_delay")
    whole = faulty(spec, tuple(feed.name for feed in spec.feeds), None)
    ingest(spark, whole, HISTORY, settings)
    branch = clean(spark, whole, HISTORY).branch
    for table in spec.clean_tables:
        fast_forward(spark, f"{CLEAN}.{table.name}", branch)
    return spec
