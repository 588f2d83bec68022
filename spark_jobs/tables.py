"""Iceberg tables as Spark jobs write them: made once, replaced by interval, versioned by snapshot id.

Belongs here: what every writing job shares. Does not belong here: which tables there are, or their columns.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.functions import partitioning

from airloop.errors import HistoryError, PublishError
from airloop.intervals import Interval
from airloop.references import TableSnapshot

RAW, CLEAN, FEATURES, TRAINING = "raw", "clean", "features", "training"
BRANCH_DAYS = 30
"""How long snapshot expiry leaves a branch for inspection."""


def within(column: str, interval: Interval) -> Column:
    """Whether the timestamp `column` lies in `interval`."""
    start, end = (F.lit(moment.isoformat()).cast("timestamp") for moment in interval)
    return (F.col(column) >= start) & (F.col(column) < end)


def ensure_table(spark: SparkSession, name: str, like: DataFrame, event_time: str | None) -> None:
    """Make the table `name` with the columns of `like`, partitioned by the UTC month of `event_time`.

    A table that exists already stays as it is; raises `PublishError` when its columns are others.
    """
    namespace = name.split(".", maxsplit=1)[0]
    spark.sql(f"CREATE NAMESPACE IF NOT EXISTS {namespace}")
    if spark.catalog.tableExists(name):
        there = {field.name: field.dataType.simpleString() for field in spark.table(name).schema}
        wanted = {field.name: field.dataType.simpleString() for field in like.schema}
        if there != wanted:
            changed = sorted(dict(there.items() ^ wanted.items()))
            raise PublishError(
                expected=f"table {name} to have the columns that the job writes",
                found=f"a difference in {', '.join(changed)}",
                next_step=f"evolve the table (ALTER TABLE {name} ...) to the new spec, or drop it and "
                "backfill; nothing was written",
            )
        return
    writer = like.limit(0).writeTo(name).using("iceberg").tableProperty("format-version", "2")
    writer = writer.tableProperty("write.parquet.compression-codec", "zstd")
    # A task sorts its rows by month and writes one file at a time, so that years fit in a small heap.
    writer = writer.tableProperty("write.distribution-mode", "none")
    if event_time is not None:
        writer = writer.partitionedBy(partitioning.months(event_time))
    writer.create()


def write_aside(
    spark: SparkSession, rows: DataFrame, table: str, event_time: str | None, interval: Interval, branch: str
) -> TableSnapshot:
    """Make `rows` the only rows of `interval` (or at all, without `event_time`) on a fresh `branch`.

    The branch starts from `main`, replaces one of the same name, and leaves `main` as it is: whatever stops
    the job, a rerun starts anew.
    """
    target = f"{_with_catalog(spark, table)}.branch_{branch}"
    spark.sql(
        f"ALTER TABLE {_with_catalog(spark, table)} "
        f"CREATE OR REPLACE BRANCH {branch} RETAIN {BRANCH_DAYS} DAYS"
    )
    if event_time is None:
        rows.writeTo(target).overwrite(F.lit(True))
    else:
        start, end = (moment.isoformat() for moment in interval)
        spark.sql(
            f"DELETE FROM {target} "
            f"WHERE {event_time} >= TIMESTAMP '{start}' AND {event_time} < TIMESTAMP '{end}'"
        )
        rows.writeTo(target).append()
    return snapshot_of(spark, table, ref=branch)


def append_aside(spark: SparkSession, rows: DataFrame, table: str, branch: str) -> None:
    """Add `rows` to what `write_aside` wrote on `branch`."""
    rows.writeTo(f"{_with_catalog(spark, table)}.branch_{branch}").append()


def fast_forward(spark: SparkSession, table: str, branch: str) -> TableSnapshot:
    """Make what `branch` holds the published state of `table`, and drop the branch."""
    spark.sql(f"CALL system.fast_forward('{_with_catalog(spark, table)}', 'main', '{branch}')")
    written = snapshot_of(spark, table)
    spark.sql(f"ALTER TABLE {_with_catalog(spark, table)} DROP BRANCH {branch}")
    return written


def snapshot_of(spark: SparkSession, table: str, *, ref: str = "main") -> TableSnapshot:
    """The reference to what `ref` of `table` points to now, and the rows that its last commit added.

    Raises `HistoryError` when nothing was ever written there.
    """
    found = spark.sql(
        f"SELECT s.snapshot_id, s.summary['added-records'] FROM {table}.snapshots s "
        f"JOIN {table}.refs r ON s.snapshot_id = r.snapshot_id WHERE r.name = '{ref}'"
    ).collect()
    if not found:
        raise HistoryError(
            expected=f"a reference {ref} on {table}",
            found="none; nothing was ever written there",
            next_step="run the use case's features DAG",
        )
    return TableSnapshot(table=table, snapshot_id=found[0][0], rows=int(found[0][1] or 0))


def read_table(spark: SparkSession, name: str) -> DataFrame:
    """The published rows of `name`; raises `HistoryError` when there is no such table."""
    if not spark.catalog.tableExists(name):
        raise HistoryError(
            expected=f"the table {name}",
            found="none",
            next_step="run the use case's features DAG over the interval first",
        )
    return spark.table(name)


def tag_snapshot(spark: SparkSession, table: str, tag: str) -> None:
    """Pin what `main` of `table` points to now as `tag`, for ever; a tag of that name moves there."""
    spark.sql(f"ALTER TABLE {_with_catalog(spark, table)} CREATE OR REPLACE TAG {tag}")


def _with_catalog(spark: SparkSession, table: str) -> str:
    # Iceberg's ALTER statements take the first part of a two-part name for a catalog before they fall back.
    return f"{spark.catalog.currentCatalog()}.{table}"
