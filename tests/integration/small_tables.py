"""A use case of small tables of its own, for tests that need many publications and few rows.

Belongs here: making rows and publishing them by the real jobs' own functions. Does not belong here: tests.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.intervals import ONE_DAY, Interval
from airloop.lakehouse.catalog import open_catalog
from airloop.lakehouse.properties import SOURCE_OFFSETS
from airloop.lakehouse.provenance import signature
from airloop.lakehouse.publish import publish
from airloop.references import AuditReport, Published
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from spark_jobs.tables import ensure_table, fast_forward, write_aside

FIRST = datetime(2013, 3, 4, tzinfo=UTC)


def day(number: int, days: int = 1) -> Interval:
    """`days` days from the `number`th on."""
    return Interval(FIRST + number * ONE_DAY, FIRST + (number + days) * ONE_DAY)


def as_run(monkeypatch: pytest.MonkeyPatch, run: str, dag_id: str = "small_features") -> str:
    """Have this process be the run `run`; its id in snapshots' properties."""
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", dag_id)
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", run)
    return f"{dag_id}/{run}"


class SmallTables:
    """A clean table of events, one of reference data, one of features; nobody else's."""

    def __init__(self, spark: SparkSession, settings: Settings, spec: UseCase) -> None:
        unique = uuid.uuid4().hex[:8]
        events = spec.clean_table("flights").model_copy(update={"name": f"e_{unique}", "event_time": "at"})
        planes = spec.clean_table("planes").model_copy(update={"name": f"p_{unique}"})
        features = spec.feature_tables[0].model_copy(update={"name": f"f_{unique}"})
        self.spark, self.settings = spark, settings
        self.spec = spec.model_copy(
            update={"name": "small", "clean_tables": (events, planes), "feature_tables": (features,)}
        )
        self.events, self.planes = f"clean.{events.name}", f"clean.{planes.name}"
        self.features = f"features.{features.name}"

    def rows(self, interval: Interval, value: str) -> DataFrame:
        """24 events a day that say `value`."""
        hours = int((interval.end - interval.start) / timedelta(hours=1))
        start = F.lit(interval.start.isoformat()).cast("timestamp")
        at = F.timestamp_seconds(F.unix_timestamp(start) + F.col("id") * 3600)
        return self.spark.range(hours).select("id", at.alias("at"), F.lit(value).alias("value"))

    def write(self, interval: Interval, value: str) -> str:
        """Clean rows on an audit branch, as the clean job leaves them; the branch."""
        branch = f"audit_{interval.key}"
        said = {**signature(self.spec.name, interval), SOURCE_OFFSETS: '{"raw.any":{"snapshot":7}}'}
        reference = self.spark.createDataFrame([(value,)], "value string")
        for rows, table, event_time in (
            (self.rows(interval, value), self.events, "at"),
            (reference, self.planes, None),
        ):
            ensure_table(self.spark, table, rows, event_time)
            write_aside(self.spark, rows, table, event_time, interval, branch, said)
        return branch

    def publish(self, branch: str, interval: Interval) -> Published:
        """Publish `branch` after an audit of 5 expectations."""
        audit = AuditReport(branch=branch, expectations=5, report_uri="file:///report.json")
        return publish(self.spec, branch, interval, self.settings, audit)

    def run(self, interval: Interval, value: str) -> Published:
        """A whole run: written, audited, published."""
        return self.publish(self.write(interval, value), interval)

    def compute_features(self, interval: Interval, value: str) -> None:
        """Features of `interval`, as the features job publishes them."""
        rows, branch = self.rows(interval, value), f"build_{interval.key}"
        ensure_table(self.spark, self.features, rows, "at")
        said = signature(self.spec.name, interval)
        write_aside(self.spark, rows, self.features, "at", interval, branch, said)
        fast_forward(self.spark, self.features, branch)

    def values(self, table: str | None = None) -> dict[int, tuple[str, int]]:
        """By number of the day: what its events say, and how many there are."""
        rows = (
            self.spark.table(table or self.events)
            .groupBy(F.datediff("at", F.lit(FIRST.date().isoformat())).alias("day"))
            .agg(F.concat_ws("+", F.sort_array(F.collect_set("value"))), F.count("*"))
            .collect()
        )
        return {row[0]: (row[1], row[2]) for row in rows}

    def snapshot_ids(self, table: str | None = None) -> list[int]:
        """All snapshots of the table."""
        loaded = open_catalog(self.settings).load_table(table or self.events)
        return [snapshot.snapshot_id for snapshot in loaded.metadata.snapshots]
