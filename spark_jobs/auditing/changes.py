"""Which days a publication would change: those that are published already, with other rows.

Belongs here: comparing a branch with `main`, day by day. Does not belong here: judging the change (an audit
does), or what follows from it (`airloop.versions.stale`).
"""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.intervals import Interval
from airloop.use_cases.spec import CleanTable
from spark_jobs.tables import CLEAN, within


def changed_days(spark: SparkSession, table: CleanTable, interval: Interval, branch: str) -> tuple[str, ...]:
    """The days of `interval` (ISO 8601) that `main` has rows of and `branch` has other rows of, or none.

    Rows are compared as a multiset, whatever their order or files. Reference data, which has no days, is
    taken as it is now and counts as never changed.
    """
    if table.event_time is None:
        return ()
    name = f"{CLEAN}.{table.name}"
    published = spark.table(name).where(within(table.event_time, interval))
    if published.isEmpty():
        return ()
    written = spark.read.option("branch", branch).table(name).where(within(table.event_time, interval))
    before, now = _by_day(published, table.event_time), _by_day(written, table.event_time)
    return tuple(sorted(day for day, digest in before.items() if now.get(day) != digest))


def _by_day(rows: DataFrame, event_time: str) -> dict[str, tuple[int, int]]:
    """By day: how many rows, and the sum of their hashes."""
    # A hash passes over nulls, so whether a value is one is hashed beside it.
    parts = [part for name in sorted(rows.columns) for part in (F.col(name).isNull(), F.col(name))]
    hashed = F.xxhash64(*parts).cast("decimal(20,0)")
    found = (
        rows.select(F.date_format(event_time, "yyyy-MM-dd").alias("day"), hashed.alias("hash"))
        .groupBy("day")
        .agg(F.count("*"), F.sum("hash"))
        .collect()
    )
    return {day: (count, int(total)) for day, count, total in found}
