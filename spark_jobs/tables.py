"""Iceberg tables as Spark jobs write them: made once, replaced by interval, versioned by snapshot id.

Belongs here: what every writing job shares, and how a write stands the commits of others. Does not belong
here: which tables there are, or how a table's columns change (`schema_evolution`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, DataFrameWriterV2, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.functions import partitioning

from airloop.errors import HistoryError
from airloop.intervals import Interval
from airloop.lakehouse.properties import BASE, EVENT_TIME, INTERVAL, interval_text, parse_interval
from airloop.references import TableSnapshot
from spark_jobs.schema_evolution import evolve

T = TypeVar("T")
RAW, CLEAN, FEATURES, TRAINING, SCORING = "raw", "clean", "features", "training", "scoring"
LABELS = "labels"
BRANCH_DAYS = 30
"""How long snapshot expiry leaves a branch for inspection."""
ATTEMPTS = 30
CONFLICTS = (
    "CommitFailedException",
    "ValidationException",
    "is not an ancestor of",
    "SQLITE_BUSY",
)
"""What Iceberg's and the catalog's errors say when another writer was first; nothing was written then."""
PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    # A task sorts its rows by month and writes one file at a time, so that years fit in a small heap.
    "write.distribution-mode": "none",
    # Several backfills commit to one table at once; four tries, the default, are too few for them, and
    # waits of up to a minute too long.
    "commit.retry.num-retries": "20",
    "commit.retry.max-wait-ms": "2000",
    # Each commit writes a metadata file of the whole table.
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "50",
}


def within(column: str, interval: Interval) -> Column:
    """Whether the timestamp `column` lies in `interval`."""
    start, end = (F.lit(moment.isoformat()).cast("timestamp") for moment in interval)
    return (F.col(column) >= start) & (F.col(column) < end)


def first_of_each(rows: DataFrame, key: Sequence[str], *order: Column | str) -> DataFrame:
    """Of the rows with the same `key`, the first by `order`."""
    window = Window.partitionBy(*key).orderBy(*order)
    return rows.withColumn("_rank", F.row_number().over(window)).where("_rank = 1").drop("_rank")


def ensure_table(
    spark: SparkSession,
    name: str,
    like: DataFrame,
    event_time: str | None,
    renamed: Mapping[str, str] | None = None,
) -> None:
    """Make the table `name` with the columns of `like`, partitioned by the UTC month of `event_time`.

    A table that is there already gets what `like` has more: new columns, wider types, and new names, where
    `renamed` gives a column's former name. Any other difference raises `PublishError` with both schemas.
    """
    namespace = name.split(".", maxsplit=1)[0]
    spark.sql(f"CREATE NAMESPACE IF NOT EXISTS {namespace}")
    if spark.catalog.tableExists(name):
        despite_conflicts(lambda: evolve(spark, _with_catalog(spark, name), like.schema, renamed or {}))
        return
    writer = like.limit(0).writeTo(name).using("iceberg")
    for key, value in PROPERTIES.items():
        writer = writer.tableProperty(key, value)
    if event_time is not None:
        writer = writer.partitionedBy(partitioning.months(event_time))
    try:
        writer.create()
    except PySparkException:
        # Another job made it meanwhile; anything else shows itself again.
        if not spark.catalog.tableExists(name):
            raise


def despite_conflicts(attempt: Callable[[], T]) -> T:
    """What `attempt` returns, tried again while other writers' commits come in between.

    Iceberg repeats an append by itself; a change of references, a delete and a merge it gives up.
    """
    for number in range(ATTEMPTS - 1):
        try:
            return attempt()
        except Exception as error:
            if not _is_conflict(error):
                raise
        time.sleep(random.uniform(0.2, 1) * min(5.0, 0.2 * 2**number))  # noqa: S311 - spreads retries, is no secret
    return attempt()


def write_aside(
    spark: SparkSession,
    rows: DataFrame,
    table: str,
    event_time: str | None,
    interval: Interval,
    branch: str,
    properties: Mapping[str, str] | None = None,
) -> TableSnapshot:
    """Make `rows` the only rows of `interval` (or at all, without `event_time`) on a fresh `branch`.

    The branch starts from `main`, replaces one of the same name, and leaves `main` as it is: whatever stops
    the job, a rerun starts anew. Its last snapshot carries `properties`, the interval, and what `main` was.
    """
    target = f"{_with_catalog(spark, table)}.branch_{branch}"
    base = despite_conflicts(lambda: _fresh_branch(spark, table, branch))
    said = {**(properties or {}), INTERVAL: interval_text(interval), BASE: str(base)}
    if event_time is None:
        _saying(rows.writeTo(target), said).overwrite(F.lit(True))
    else:
        said[EVENT_TIME] = event_time
        start, end = (moment.isoformat() for moment in interval)
        spark.sql(
            f"DELETE FROM {target} "  # noqa: S608 - the spec's names
            f"WHERE {event_time} >= TIMESTAMP '{start}' AND {event_time} < TIMESTAMP '{end}'"
        )
        _saying(rows.writeTo(target), said).append()
    return snapshot_of(spark, table, ref=branch)


def append(rows: DataFrame, table: str, properties: Mapping[str, str]) -> None:
    """Add `rows` to `main` of `table` in one snapshot that carries `properties`."""
    _saying(rows.writeTo(table), properties).append()


@contextmanager
def statements_saying(spark: SparkSession, properties: Mapping[str, str]) -> Iterator[None]:
    """Have the snapshots of SQL statements (MERGE, DELETE) within carry `properties`.

    For the whole session: not for threads that share one.
    """
    settings = {f"spark.sql.iceberg.snapshot-property.{name}": value for name, value in properties.items()}
    for name, value in settings.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name in settings:
            spark.conf.unset(name)


def append_aside(spark: SparkSession, rows: DataFrame, table: str, branch: str) -> None:
    """Add `rows` to what `write_aside` wrote on `branch`, under the same properties."""
    said = _properties(spark, table, branch)
    _saying(rows.writeTo(f"{_with_catalog(spark, table)}.branch_{branch}"), said).append()


def fast_forward(spark: SparkSession, table: str, branch: str) -> TableSnapshot:
    """Make what `branch` holds for its interval the published state of `table`, and drop the branch.

    Where `main` moved since the branch was made (another interval's run, a compaction), the branch's rows of
    the interval are written again on top of what `main` is now.
    """
    written = despite_conflicts(lambda: _fast_forward(spark, table, branch))
    for name in (branch, _rebased(branch)):
        despite_conflicts(
            lambda name=name: spark.sql(
                f"ALTER TABLE {_with_catalog(spark, table)} DROP BRANCH IF EXISTS {name}"
            )
        )
    return written


def _fast_forward(spark: SparkSession, table: str, branch: str) -> TableSnapshot:
    said = _properties(spark, table, branch)
    if said.get(BASE) not in (None, str(snapshot_of(spark, table).snapshot_id)):
        rows, event_time = spark.read.option("branch", branch).table(table), said.get(EVENT_TIME)
        interval = parse_interval(said[INTERVAL])
        if event_time is not None:
            rows = rows.where(within(event_time, interval))
        branch = _rebased(branch)
        write_aside(spark, rows, table, event_time, interval, branch, said)
    written = snapshot_of(spark, table, ref=branch)
    spark.sql(f"CALL system.fast_forward('{_with_catalog(spark, table)}', 'main', '{branch}')")
    return written


def _rebased(branch: str) -> str:
    return f"{branch}_rebased"


def _fresh_branch(spark: SparkSession, table: str, branch: str) -> int:
    """Make `branch` anew at what `main` is; returns that."""
    base = snapshot_of(spark, table).snapshot_id
    spark.sql(
        f"ALTER TABLE {_with_catalog(spark, table)} "
        f"CREATE OR REPLACE BRANCH {branch} AS OF VERSION {base} RETAIN {BRANCH_DAYS} DAYS"
    )
    return base


def _saying(writer: DataFrameWriterV2, properties: Mapping[str, str]) -> DataFrameWriterV2:
    return writer.options(**{f"snapshot-property.{name}": value for name, value in properties.items()})


def _properties(spark: SparkSession, table: str, ref: str) -> dict[str, str]:
    """Airloop's own properties of the snapshot that `ref` points to."""
    _, summary = _head(spark, table, ref)
    return {name: value for name, value in summary.items() if name.startswith("airloop.")}


def _head(spark: SparkSession, table: str, ref: str) -> tuple[int | None, dict[str, str]]:
    """The snapshot that `ref` points to, and its summary; None when there is no such reference.

    Two queries: each reads the table as it is then, and of a reference read last the snapshot may be newer
    than all that were read first.
    """
    found = spark.sql(f"SELECT snapshot_id FROM {table}.refs WHERE name = '{ref}'").collect()  # noqa: S608 - the spec's names
    if not found:
        return None, {}
    query = f"SELECT summary FROM {table}.snapshots WHERE snapshot_id = {found[0][0]}"  # noqa: S608 - the spec's names
    return int(found[0][0]), dict(spark.sql(query).collect()[0][0])


def _is_conflict(error: Exception) -> bool:
    return any(name in str(error) for name in CONFLICTS)


def snapshot_of(spark: SparkSession, table: str, *, ref: str = "main") -> TableSnapshot:
    """The reference to what `ref` of `table` points to now, and the rows that its last commit added.

    Raises `HistoryError` when nothing was ever written there.
    """
    snapshot_id, summary = _head(spark, table, ref)
    if snapshot_id is None:
        raise HistoryError(
            expected=f"a reference {ref} on {table}",
            found="none; nothing was ever written there",
            next_step="run the use case's features DAG",
        )
    return TableSnapshot(table=table, snapshot_id=snapshot_id, rows=int(summary.get("added-records", 0)))


def read_table(spark: SparkSession, name: str) -> DataFrame:
    """The published rows of `name`; raises `HistoryError` when there is no such table."""
    if not spark.catalog.tableExists(name):
        raise HistoryError(
            expected=f"the table {name}",
            found="none",
            next_step="run the use case's features DAG over the interval first",
        )
    return spark.table(name)


def tag_snapshot(spark: SparkSession, table: str, tag: str, snapshot_id: int | None = None) -> None:
    """Pin a snapshot of `table`, by default what `main` points to now, as `tag`, for ever.

    A tag of that name moves there.
    """
    statement = f"ALTER TABLE {_with_catalog(spark, table)} CREATE OR REPLACE TAG {tag}"
    if snapshot_id is not None:
        statement += f" AS OF VERSION {snapshot_id}"
    despite_conflicts(lambda: spark.sql(statement))


def tagged(
    spark: SparkSession, table: str, prefix: str, properties: Mapping[str, str]
) -> tuple[str, int] | None:
    """A tag of `table` that begins with `prefix`, on a snapshot that carries `properties`, and its id.

    The latest by name; None where there is none, or no such table.
    """
    if not spark.catalog.tableExists(table):
        return None
    tags = spark.sql(
        "SELECT r.name, s.snapshot_id, s.summary "  # noqa: S608 - the spec's names
        f"FROM {table}.refs r JOIN {table}.snapshots s ON s.snapshot_id = r.snapshot_id "
        f"WHERE r.type = 'TAG' AND startswith(r.name, '{prefix}')"
    ).collect()
    for name, snapshot_id, said in sorted(tags, reverse=True):
        if properties.items() <= said.items():
            return name, snapshot_id
    return None


def _with_catalog(spark: SparkSession, table: str) -> str:
    # Iceberg's ALTER statements take the first part of a two-part name for a catalog before they fall back.
    return f"{spark.catalog.currentCatalog()}.{table}"
