"""A use case that reads another's tables writes its own alone, and knows an hour as it begins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from airloop.dotted import load
from airloop.intervals import ONE_DAY, ONE_HOUR, Interval
from airloop.lakehouse.catalog import open_catalog
from airloop.prediction_request import features_in_force, parse_request
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from airloop.use_cases.training_policy import TrainingPolicy
from feature_repo.materialise import materialise
from feature_repo.store import open_store
from serving.gateway.online_features import OnlineFeatures
from spark_jobs import training_set
from spark_jobs.features import build_features
from spark_jobs.history import clean_history
from spark_jobs.push import newest_values, push
from tests.integration.conftest import WEEK

OWN = "features.origin_next_hour"
DAY = Interval(datetime(2013, 3, 8, tzinfo=UTC), datetime(2013, 3, 9, tzinfo=UTC))
HOUR_SECONDS = 3600


@pytest.fixture(scope="module")
def borrower() -> UseCase:
    return use_case("airport_congestion")


@pytest.fixture(scope="module")
def built(materialised: None, spark: SparkSession, borrower: UseCase, settings: Settings) -> Any:
    return build_features(spark, borrower, WEEK)


def _rows(settings: Settings, table: str) -> pd.DataFrame:
    return open_catalog(settings).load_table(table).scan().to_pandas()


def test_only_its_own_tables_are_written(
    built: Any, spark: SparkSession, spec: UseCase, borrower: UseCase, settings: Settings
) -> None:
    catalog = open_catalog(settings)
    lent = [f"clean.{table.name}" for table in borrower.clean_tables]
    lent += [f"features.{table.name}" for table in borrower.feature_tables if table.made_by]
    before = {name: catalog.load_table(name).current_snapshot().snapshot_id for name in lent}
    again = build_features(spark, borrower, WEEK)
    assert [one.table for one in again.snapshots] == [OWN, f"labels.{borrower.name}"]
    assert {name: catalog.load_table(name).current_snapshot().snapshot_id for name in lent} == before
    views = materialise(open_store(settings), borrower, WEEK, settings).feature_views
    assert views == ("origin_next_hour",)
    assert "dest_hourly" in {view.name for view in open_store(settings).list_feature_views()}, "the lender's"


def test_an_hour_is_known_as_brute_force_knows_it(
    built: Any, spark: SparkSession, borrower: UseCase, settings: Settings
) -> None:
    flights, movements = (_rows(settings, f"clean.{name}") for name in ("flights", "movements"))
    movements["at"] = movements["occurred_at"].astype("int64") // 1_000_000
    flights["due"] = flights["scheduled_departure"].astype("int64") // 1_000_000
    flights["known"] = flights["published_at"].astype("int64") // 1_000_000
    left = movements[movements["kind"] == "departure"]
    rows = _rows(settings, OWN).set_index(["origin", "event_timestamp"])
    checked = 0
    for (origin, moment), found in rows.sample(60, random_state=1).iterrows():
        hour = int(moment.timestamp())
        there = flights[(flights["origin"] == origin) & (flights["known"] < hour)]
        due = there[(there["due"] >= hour) & (there["due"] < hour + HOUR_SECONDS)]
        assert found["origin_departures_due_1h"] == len(due) > 0
        lasts = []
        for tail in due["tail_number"].dropna():
            moved = movements[(movements["tail_number"] == tail) & (movements["at"] < hour)]
            moved = moved[moved["at"] >= hour - 25 * HOUR_SECONDS].sort_values("at")
            if len(moved):
                lasts.append(moved["delay_minutes"].iloc[-1])
        assert _same(found["origin_inbound_delay_1h"], np.mean(lasts) if lasts else None)
        checked += bool(lasts)
        for days in (1, 7):
            first = hour - days * 24 * HOUR_SECONDS
            then = left[
                (left["origin"] == origin) & (left["at"] >= first) & (left["at"] < first + HOUR_SECONDS)
            ]
            want = then["delay_minutes"].mean() if len(then) else None
            assert _same(found[f"origin_same_hour_delay_{days}d"], want)
    assert checked > 40


def test_a_day_by_itself_has_the_rows_that_it_has_among_others(
    built: Any, spark: SparkSession, borrower: UseCase, settings: Settings
) -> None:
    transform = load(borrower.transform)
    alone = transform.features(clean_history(spark, borrower, DAY), DAY)["origin_next_hour"].toPandas()
    every = _rows(settings, OWN)
    inside = every["event_timestamp"].between(DAY.start, DAY.end - timedelta(seconds=1))
    keys = ["origin", "event_timestamp"]
    alone["event_timestamp"] = pd.to_datetime(alone["event_timestamp"], utc=True)
    left, right = (
        one.sort_values(keys).reset_index(drop=True)[every.columns] for one in (alone, every[inside])
    )
    pd.testing.assert_frame_equal(left, right, check_dtype=False)


def test_labels_and_training_rows_are_means_of_what_left(
    built: Any, spark: SparkSession, borrower: UseCase, settings: Settings
) -> None:
    policy = borrower.training.model_copy(update={"train_days": 2, "validation_days": 1, "test_days": 1})
    made = training_set.build(spark, borrower, TrainingPolicy(**policy.model_dump()), WEEK.end, settings)
    rows = _rows(settings, made.table)
    left = _rows(settings, "clean.movements").query("kind == 'departure'")
    left["hour"] = left["occurred_at"].dt.floor("h")
    means = left.groupby(["origin", "hour"])["delay_minutes"].mean()
    assert len(rows) > 200
    for row in rows.sample(40, random_state=1).to_dict("records"):
        want = means[row["origin"], row["prediction_time"]]
        assert row["mean_departure_delay_minutes"] == pytest.approx(want)
        request = parse_request(borrower, row["request"])
        assert request.prediction_time == row["prediction_time"]
        # New York is five hours behind until the second Sunday in March.
        assert request.fields["hour"].utcoffset() == timedelta(hours=-5)
    labels = _rows(settings, f"labels.{borrower.name}").set_index("event")["label"]
    assert np.isin(np.round(labels, 6), np.round(means, 6)).all()
    lent = rows["origin_mean_departure_delay_1h"].notna().mean()
    assert lent > 0.7, "features of the lender are joined"


def test_what_is_pushed_as_an_hour_begins_is_what_the_table_says_of_it(
    built: Any, spark: SparkSession, borrower: UseCase, settings: Settings
) -> None:
    hour = DAY.start + 18 * ONE_HOUR
    known = newest_values(spark, borrower, Interval(DAY.start - ONE_DAY, hour))
    assert list(known) == ["origin_next_hour"]
    every = _rows(settings, OWN)
    here = every[every["event_timestamp"] == hour].set_index("origin")
    pushed = known["origin_next_hour"].toPandas().set_index("origin")
    assert set(pushed.index) == {"EWR", "JFK", "LGA"}
    for origin, row in pushed.iterrows():
        for name in borrower.feature_table("origin_next_hour").features:
            assert _same(row[name], here.loc[origin, name])


def test_the_gateway_reads_what_was_pushed_and_what_the_lender_published(
    built: Any, spark: SparkSession, borrower: UseCase, settings: Settings
) -> None:
    until = WEEK.end - 4 * ONE_HOUR
    assert push(spark, open_store(settings), borrower, until, settings).rows == {"origin_next_hour": 3}
    online = OnlineFeatures(lambda: open_store(settings))
    request = parse_request(borrower, '{"origin": "JFK", "hour": "2013-03-10T16:00:00-04:00"}')
    (stored,) = online.read(borrower, [request])
    assert set(stored) == {name for table in borrower.feature_tables for name in table.features}
    values = features_in_force(borrower, request, stored)
    assert values["origin_departures_due_1h"] is not None
    assert stored["origin_mean_departure_delay_1h"].value is not None


def _same(found: float | None, want: float | None) -> bool:
    if want is None or np.isnan(want):
        return found is None or bool(np.isnan(found))
    return bool(np.isclose(found, want))
