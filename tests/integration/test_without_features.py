"""A use case without a feature: what the request says is all that its model is given."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from feast import FeatureStore
from pyspark.sql import SparkSession

from airloop.errors import SpecError
from airloop.intervals import Interval
from airloop.lakehouse.catalog import open_catalog
from airloop.prediction_request import assemble_inputs, example_request, parse_request
from airloop.references import Published
from airloop.settings import Settings
from airloop.stack.loop import Windows, features_interval
from airloop.use_cases.flight_delay import USE_CASE
from airloop.use_cases.spec import UseCase, define
from airloop.use_cases.training_policy import TrainingPolicy
from feature_repo.materialise import materialise
from feature_repo.store import open_store
from serving.gateway.online_features import OnlineFeatures
from spark_jobs import scoring_set, training_set
from spark_jobs.features import build_features
from tests.integration.test_data_plane import WEEK

DAY = Interval(datetime(2013, 3, 8, tzinfo=UTC), datetime(2013, 3, 9, tzinfo=UTC))
NONE = {
    "name": "flight_plain",
    "sources": (),
    "streams": (),
    "feature_tables": (),
    "on_demand": (),
    "feature_definitions": None,
    "feature_service": None,
    "earlier_feature_services": {},
    "elapsed": USE_CASE.elapsed[:1],
    "inputs": tuple(item for item in USE_CASE.inputs if item.request_field is not None),
    "erasure": None,
}


def plain(**changes: object) -> UseCase:
    gates = USE_CASE.gates.model_copy(update={"slices": (), "behaviours": ()})
    fields = {name: getattr(USE_CASE, name) for name in type(USE_CASE).model_fields}
    return define(
        **fields
        | NONE
        | {"gates": gates, "clean_tables": USE_CASE.lends("flights", "movements", "weather", "planes").clean}
        | changes
    )


@pytest.fixture(scope="module")
def plain_spec() -> UseCase:
    return plain()


@pytest.fixture(scope="module")
def built(materialised: None, spark: SparkSession, plain_spec: UseCase) -> Published:
    return build_features(spark, plain_spec, WEEK)


def test_it_has_labels_and_nothing_to_materialise(
    built: Published, plain_spec: UseCase, settings: Settings
) -> None:
    assert [one.table for one in built.snapshots] == [f"labels.{plain_spec.name}"]
    before = {view.name for view in open_store(settings).list_feature_views()}
    assert materialise(open_store(settings), plain_spec, WEEK, settings).feature_views == ()
    assert {view.name for view in open_store(settings).list_feature_views()} == before


def test_what_is_scored_in_batches_writes_no_online_value(
    materialised: None, spec: UseCase, settings: Settings
) -> None:
    batch = spec.model_copy(update={"serving": "batch"})
    assert materialise(open_store(settings), batch, WEEK, settings).feature_views == ()


def test_a_training_set_and_a_days_requests_have_what_requests_say(
    built: Published, spark: SparkSession, plain_spec: UseCase, settings: Settings
) -> None:
    policy = plain_spec.training.model_copy(update={"train_days": 2, "validation_days": 1, "test_days": 1})
    made = training_set.build(spark, plain_spec, TrainingPolicy(**policy.model_dump()), WEEK.end, settings)
    asked = scoring_set.build(spark, plain_spec, DAY, settings)
    assert asked.rows > 500
    for table in (made.table, asked.table):
        rows = open_catalog(settings).load_table(table).scan().to_pandas()
        assert len(rows) > 500
        for row in rows.sample(50, random_state=1).to_dict("records"):
            request = parse_request(plain_spec, row["request"])
            inputs = assemble_inputs(plain_spec, request, {})
            assert inputs == {name: row[name] for name in inputs}


def test_the_gateway_asks_no_store(plain_spec: UseCase) -> None:
    def opened() -> FeatureStore:
        raise AssertionError("the store was opened")

    request = example_request(plain_spec)
    assert OnlineFeatures(opened).read(plain_spec, [request, request]) == [{}, {}]


def test_the_loop_reaches_back_over_windows_and_labels_alone(plain_spec: UseCase) -> None:
    span, whole = (features_interval(spec, WEEK.end, Windows()) for spec in (plain_spec, USE_CASE))
    longest = max(table.time_to_live for table in USE_CASE.feature_tables)
    assert span.end == whole.end
    assert span.start - whole.start == longest


def test_who_has_features_says_where_they_are() -> None:
    with pytest.raises(SpecError, match="feature_service: it has features, so it needs one"):
        plain(
            feature_tables=USE_CASE.lends("origin_hourly").features,
            feature_definitions="feature_repo.flight_delay",
        )
