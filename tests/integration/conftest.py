"""One week of 2013 through the real jobs: real Spark, Iceberg, Great Expectations and Feast."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from airloop.intervals import Interval
from airloop.lakehouse.publish import publish
from airloop.references import TrainingSet
from airloop.settings import REPOSITORY, Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from airloop.use_cases.training_policy import TrainingPolicy
from feature_repo.materialise import materialise
from feature_repo.store import open_store
from spark_jobs import training_set
from spark_jobs.audit import audit
from spark_jobs.clean import clean
from spark_jobs.features import build_features
from spark_jobs.ingest import ingest
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


@pytest.fixture(scope="session")
def published(spark: SparkSession, spec: UseCase, settings: Settings) -> None:
    """The week, audited and published, and its features."""
    ingest(spark, spec, WEEK, settings)
    branch = clean(spark, spec, WEEK).branch
    audit(spark, spec, WEEK, branch, settings)
    publish(spec, branch, WEEK, settings)
    build_features(spark, spec, WEEK)


@pytest.fixture(scope="session")
def materialised(published: None, spec: UseCase, settings: Settings) -> None:
    """The week in the online store."""
    materialise(open_store(settings), spec, WEEK, settings)


@pytest.fixture(scope="session")
def trained_on(materialised: None, spark: SparkSession, spec: UseCase, settings: Settings) -> TrainingSet:
    """A training set of four of its days."""
    policy = spec.training.model_copy(update={"train_days": 2, "validation_days": 1, "test_days": 1})
    return training_set.build(spark, spec, TrainingPolicy(**policy.model_dump()), WEEK.end, settings)
