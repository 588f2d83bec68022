"""Labels of past days: mature ones, under the names that the gateway gives events, replaced as a whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow.compute as pc
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from airloop.intervals import Interval
from airloop.lakehouse.catalog import open_catalog
from airloop.prediction_log.labels import known_labels, table_name
from airloop.prediction_request import event_of, parse_request
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from spark_jobs.labels import build_labels
from spark_jobs.request_columns import event_column
from tests.integration.conftest import WEEK

DAY = timedelta(days=1)
WRITTEN = Interval(WEEK.start - DAY, WEEK.end - DAY)
"""Prediction times whose labels mature in the week."""


def test_each_label_is_there_once_under_the_name_that_a_request_for_it_has(
    published: None, spark: SparkSession, spec: UseCase, settings: Settings
) -> None:
    rows = open_catalog(settings).load_table(table_name(spec)).scan().to_arrow()
    times = pc.min_max(rows["prediction_time"]).as_py()
    assert WRITTEN.start <= times["min"] <= times["max"] < WRITTEN.end
    landed = spark.sql(
        "SELECT count(*) AS n, sum(CAST(m.delay_minutes > 15 AS INT)) AS late "
        "FROM clean.flights f JOIN clean.movements m ON f.flight_id = m.flight_id AND m.kind = 'landing' "
        f"WHERE f.scheduled_departure < timestamp '{WRITTEN.end + spec.prediction_lead:%Y-%m-%d %H:%M:%S}'"
    ).first()
    assert (len(rows), pc.sum(rows["label"]).as_py()) == (landed["n"], landed["late"])
    assert len(rows) > 4000
    for request, event, at in zip(
        rows["request"].to_pylist(),
        rows["event"].to_pylist(),
        rows["prediction_time"].to_pylist(),
        strict=True,
    ):
        asked = parse_request(spec, request)
        assert (event_of(spec, asked), asked.prediction_time) == (event, at)
    assert pc.all(pc.equal(pc.greater(rows["outcome"], 15), pc.equal(rows["label"], 1))).as_py()


def test_a_day_that_runs_again_has_the_same_labels(
    published: None, spark: SparkSession, spec: UseCase, settings: Settings
) -> None:
    table = open_catalog(settings).load_table(table_name(spec))
    order = [("event", "ascending"), ("request", "ascending")]
    before = table.scan().to_arrow().sort_by(order)
    day = Interval(datetime(2013, 3, 7, tzinfo=UTC), datetime(2013, 3, 8, tzinfo=UTC))
    written = build_labels(spark, spec, day, "build_again")
    table.refresh()
    assert table.scan().to_arrow().sort_by(order) == before
    assert 500 < written.rows < len(before) / 4


def test_two_events_of_one_name_have_a_label_only_if_it_is_the_same(
    published: None, spec: UseCase, settings: Settings
) -> None:
    catalog = open_catalog(settings)
    rows = catalog.load_table(table_name(spec)).scan().to_arrow()
    found = known_labels(catalog, spec, WRITTEN.start, WRITTEN.end)
    labels: dict[str, set[float]] = {}
    for event, label in zip(rows["event"].to_pylist(), rows["label"].to_pylist(), strict=True):
        labels.setdefault(event, set()).add(label)
    expected = {event: min(values) for event, values in labels.items() if len(values) == 1}
    assert dict(zip(found["event"].to_pylist(), found["label"].to_pylist(), strict=True)) == expected
    assert not len(known_labels(catalog, spec, WEEK.end, WEEK.end + DAY))
    one = rows.slice(17, 1)
    at = one["prediction_time"][0].as_py()
    assert one["event"][0].as_py() in known_labels(catalog, spec, at, at)["event"].to_pylist()


@pytest.mark.parametrize("missing", ["tail_number", "carrier"])
def test_what_is_missing_has_a_name_too(
    published: None, spark: SparkSession, spec: UseCase, missing: str
) -> None:
    named = spec.model_copy(update={"event_key": ("origin", missing, "scheduled_departure")})
    flights = spark.table("clean.flights").limit(3).withColumn(missing, F.lit(None).cast("string"))
    rows = flights.select(event_column(named).alias("event"), "origin", "scheduled_departure").collect()
    for row in rows:
        body = (
            f'{{"origin": "{row.origin}", "dest": "LAX", "carrier": "DL", '
            f'"scheduled_departure": "{row.scheduled_departure.astimezone(UTC).isoformat()}", '
            f'"scheduled_arrival": "{row.scheduled_departure.astimezone(UTC).isoformat()}"}}'
        )
        request = parse_request(spec, body)
        fields = {**request.fields, missing: None}
        object.__setattr__(request, "fields", fields)
        assert event_of(named, request) == row.event
