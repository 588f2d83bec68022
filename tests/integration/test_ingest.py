"""Batch ingestion: raw holds what the source delivers for the interval, and nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from airloop.connections import Connection
from airloop.errors import SourceError
from airloop.intervals import Interval, day_interval
from airloop.settings import Settings
from airloop.sources.contract import Delivery, Malformed, record_schema
from airloop.use_cases.spec import Column, Feed, Source, UseCase
from spark_jobs.ingest import ingest

FEED = Feed(
    name="readings",
    key=("station", "at"),
    event_time="at",
    columns=(
        Column(name="station", type="string"),
        Column(name="at", type="timestamp"),
        Column(name="value", type="double", required=False),
    ),
)
DAY = day_interval(datetime(2013, 3, 4, tzinfo=UTC).date())
NEXT_DAY = Interval(DAY.end, DAY.end + timedelta(days=1))


class Planted:
    """A source whose content a test sets: (station, hour of DAY, value, offset) and malformed offsets."""

    rows: ClassVar[list[tuple[str, int, float, str]]] = []
    malformed: ClassVar[list[str]] = []

    def __init__(
        self, settings: Settings, options: Mapping[str, str], connection: Connection | None
    ) -> None: ...

    def read(self, feed: Feed, interval: Interval) -> Iterator[Delivery]:
        for station, hour, value, offset in self.rows:
            at = DAY.start + timedelta(hours=hour)
            if interval.start <= at < interval.end:
                record = {"station": station, "at": at, "value": value}
                record |= {"_source_offset": offset, "_source_time": at}
                yield Delivery(pa.Table.from_pylist([record], schema=record_schema(feed)))
        bad = tuple(Malformed(offset, DAY.start, "no number", '{"value": "x"}') for offset in self.malformed)
        yield Delivery(record_schema(feed).empty_table(), bad)


@pytest.fixture
def planted(spec: UseCase, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> UseCase:
    monkeypatch.setattr("spark_jobs.ingest.adapter_class", lambda name: Planted)
    spark.sql("CREATE NAMESPACE IF NOT EXISTS raw")
    spark.sql("DROP TABLE IF EXISTS raw.readings")
    spark.sql("DROP TABLE IF EXISTS raw.quarantine")
    Planted.rows = [("JFK", hour, float(hour), f"a@1:{hour}") for hour in range(48)]
    Planted.malformed = []
    source = Source(name="planted", adapter="nycflights", feeds=(FEED,), max_malformed_share=0.1)
    return spec.model_copy(update={"sources": (source,), "streams": ()})


def _values(spark: SparkSession) -> dict[tuple[str, int], float]:
    rows = spark.table("raw.readings").selectExpr("station", "cast(at as long) at", "value").collect()
    assert len({(row.station, row.at) for row in rows}) == len(rows)
    return {(row.station, (row.at - int(DAY.start.timestamp())) // 3600): row.value for row in rows}


def test_a_redelivered_day_replaces_that_day_alone_in_one_commit(
    planted: UseCase, spark: SparkSession, settings: Settings
) -> None:
    both = Interval(DAY.start, NEXT_DAY.end)
    assert ingest(spark, planted, both, settings).snapshots[0].rows == 48
    # The day comes again as another version of its file: one value corrected, one record gone, one more.
    Planted.rows = [("JFK", hour, float(hour), f"a@2:{hour}") for hour in range(23) if hour != 5]
    Planted.rows += [("JFK", 5, 500.0, "a@2:5"), ("LGA", 7, 7.5, "a@2:24")]
    before = spark.table("raw.readings.snapshots").count()
    again = ingest(spark, planted, DAY, settings)
    assert spark.table("raw.readings.snapshots").count() == before + 1
    assert (again.snapshots[0].rows, again.withdrawn) == (24, 24)
    values = _values(spark)
    assert values[("JFK", 5)] == 500.0
    assert values[("LGA", 7)] == 7.5
    assert ("JFK", 23) not in values
    assert {hour for station, hour in values if hour >= 24} == set(range(24, 48))


def test_the_same_delivery_again_changes_nothing(
    planted: UseCase, spark: SparkSession, settings: Settings
) -> None:
    first = ingest(spark, planted, DAY, settings)
    again = ingest(spark, planted, DAY, settings)
    assert again.snapshots[0].snapshot_id == first.snapshots[0].snapshot_id
    assert (again.snapshots[0].rows, again.duplicates, again.withdrawn) == (0, 24, 0)


def test_records_of_another_source_are_left_alone(
    planted: UseCase, spark: SparkSession, settings: Settings
) -> None:
    ingest(spark, planted, DAY, settings)
    spark.sql(
        "INSERT INTO raw.readings SELECT 'EWR', at, value, 'a_stream', 'EWR|x', _source_offset, _source_time "
        "FROM raw.readings WHERE value = 3"
    )
    Planted.rows = [("JFK", 1, 1.0, "a@2:1")]
    assert ingest(spark, planted, DAY, settings).withdrawn == 24
    assert _values(spark) == {("JFK", 1): 1.0, ("EWR", 3): 3.0}


def test_a_malformed_record_is_quarantined_once_and_stops_nothing(
    planted: UseCase, spark: SparkSession, settings: Settings
) -> None:
    Planted.malformed = ["a@1:99"]
    assert ingest(spark, planted, DAY, settings).quarantined == 1
    assert ingest(spark, planted, DAY, settings).quarantined == 0
    kept = spark.table("raw.quarantine").collect()
    assert [(row.feed, row._source, row._source_offset, row.reason, row.payload) for row in kept] == [
        ("readings", "planted", "a@1:99", "no number", '{"value": "x"}')
    ]
    assert len(_values(spark)) == 24


def test_a_delivery_that_is_mostly_malformed_is_refused_whole(
    planted: UseCase, spark: SparkSession, settings: Settings
) -> None:
    Planted.malformed = [f"a@1:{n}" for n in range(90, 120)]
    with pytest.raises(SourceError, match=r"30 of 54 records: no number \(at a@1:90\)"):
        ingest(spark, planted, DAY, settings)
    assert not spark.catalog.tableExists("raw.readings")
    assert not list(settings.scratch_dir.glob("*ingest_*"))


def test_a_source_that_delivers_nothing_leaves_an_empty_table(
    planted: UseCase, spark: SparkSession, settings: Settings
) -> None:
    Planted.rows = []
    assert ingest(spark, planted, DAY, settings).snapshots[0].rows == 0
    Planted.rows = [("JFK", 1, 1.0, "a@2:1")]
    ingest(spark, planted, DAY, settings)
    Planted.rows = []
    assert ingest(spark, planted, DAY, settings).withdrawn == 1
    assert spark.table("raw.readings").isEmpty()
