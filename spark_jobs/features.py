"""Features: rows of the feature tables for an interval, computed from published clean data; and its labels.

Belongs here: reading enough history, running the transform, replacing the interval. Does not belong here:
the transform itself, or Feast (`feature_repo`), which reads these tables.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.dotted import load
from airloop.errors import SpecError
from airloop.intervals import Interval, day_interval
from airloop.jobs import run_job
from airloop.lakehouse.provenance import signature
from airloop.references import Published
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import FeatureTable, UseCase
from spark_jobs.arguments import interval_of, job_parser
from spark_jobs.history import EVENT_TIMESTAMP, clean_history
from spark_jobs.labels import build_labels
from spark_jobs.session import open_session
from spark_jobs.tables import (
    CLEAN,
    FEATURES,
    ensure_table,
    fast_forward,
    snapshot_of,
    write_aside,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOST_ROUNDS = 5
SPARK_TYPES = {"string": "string", "long": "bigint", "double": "double", "timestamp": "timestamp"}


def conformed(spec: UseCase, frames: Mapping[str, DataFrame]) -> dict[str, DataFrame]:
    """The feature tables that the transform yielded, as the spec declares them.

    Raises `SpecError` naming the table, or the columns of one, that are not among them.
    """
    missing = [table.name for table in spec.own_feature_tables if table.name not in frames]
    if missing:
        names = ", ".join(table.name for table in spec.own_feature_tables)
        raise SpecError(
            expected=f"{spec.transform}.features to yield {names}",
            found=f"only {', '.join(sorted(frames)) or 'nothing'}",
            next_step=f"return {', '.join(missing)} there too, or take it out of the spec's feature_tables",
        )
    return {table.name: conform(frames[table.name], table, spec) for table in spec.own_feature_tables}


def conform(rows: DataFrame, table: FeatureTable, spec: UseCase) -> DataFrame:
    """`rows` as the spec declares them: entities, `event_timestamp`, then features, each of its type.

    Raises `SpecError` naming the columns that the transform did not yield.
    """
    wanted = [*table.entities, EVENT_TIMESTAMP, *table.features]
    missing = [name for name in wanted if name not in rows.columns]
    if missing:
        raise SpecError(
            expected=f"{spec.transform}.features to yield {', '.join(wanted)} for {table.name}",
            found=f"no {', '.join(missing)}",
            next_step="add what is missing there, or take it out of feature_tables in the spec of "
            f"{spec.name}",
        )
    return rows.select(
        *table.entities,
        EVENT_TIMESTAMP,
        *(F.col(name).cast(SPARK_TYPES[type_]).alias(name) for name, type_ in table.features.items()),
    )


def affected(spark: SparkSession, spec: UseCase, interval: Interval) -> Interval:
    """`interval` and the later days, as far as features were built already, that look back on it.

    Features of a day reach `lookback` into the past, so clean data that changes on one day changes the
    features of the days after it too.
    """
    built = [
        last
        for table in spec.own_feature_tables
        if spark.catalog.tableExists(f"{FEATURES}.{table.name}")
        for last in spark.table(f"{FEATURES}.{table.name}").agg(F.max(F.unix_micros(EVENT_TIMESTAMP))).first()
        if last is not None
    ]
    if not built:
        return interval
    last_day = day_interval((EPOCH + timedelta(microseconds=max(built))).date())
    return Interval(interval.start, max(interval.end, min(interval.end + spec.lookback, last_day.end)))


def build_features(spark: SparkSession, spec: UseCase, interval: Interval) -> Published:
    """Replace the rows of `interval`, and of later days that look back on it, in every feature table; and the
    labels that mature in those days.

    Where another run publishes clean data meanwhile (a backfill of another day), the features are computed
    again: otherwise the later of two commits could bring back values from before the other's data.
    """
    for _ in range(MOST_ROUNDS):
        read_from = _clean_versions(spark, spec)
        published = _replace(spark, spec, affected(spark, spec, interval), interval.key)
        if _clean_versions(spark, spec) == read_from:
            return published
    raise TimeoutError(f"clean data changed during each of {MOST_ROUNDS} computations of {interval.key}")


def _clean_versions(spark: SparkSession, spec: UseCase) -> list[int]:
    return [snapshot_of(spark, f"{CLEAN}.{table.name}").snapshot_id for table in spec.clean_tables]


def _replace(spark: SparkSession, spec: UseCase, interval: Interval, key: str) -> Published:
    frames = load(spec.transform).features(clean_history(spark, spec, interval), interval)
    snapshots = []
    for table, rows in conformed(spec, frames).items():
        name = f"{FEATURES}.{table}"
        ensure_table(spark, name, rows, EVENT_TIMESTAMP)
        branch = f"build_{key}"
        write_aside(spark, rows, name, EVENT_TIMESTAMP, interval, branch, signature(spec.name, interval))
        snapshots.append(fast_forward(spark, name, branch))
    snapshots.append(build_labels(spark, spec, interval, f"build_{key}"))
    return Published(snapshots=tuple(snapshots))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> Published:
        spec, interval = use_case(arguments.use_case), interval_of(arguments)
        return build_features(open_session(settings, f"{spec.name} features {interval.key}"), spec, interval)

    return run_job(job_parser(__doc__), work, argv)


if __name__ == "__main__":
    sys.exit(main())
