"""Features: rows of the feature tables for an interval, computed from published clean data.

Belongs here: reading enough history, running the transform, replacing the interval. Does not belong here:
the transform itself, or Feast (`feature_repo`), which reads these tables.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.dotted import load
from airloop.errors import SpecError
from airloop.intervals import Interval
from airloop.jobs import run_job
from airloop.references import Published
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import FeatureTable, UseCase
from spark_jobs.arguments import interval_of, job_parser
from spark_jobs.session import open_session
from spark_jobs.tables import CLEAN, FEATURES, ensure_table, fast_forward, read_table, within, write_aside

EVENT_TIMESTAMP = "event_timestamp"
SPARK_TYPES = {"string": "string", "long": "bigint", "double": "double", "timestamp": "timestamp"}


def clean_history(spark: SparkSession, spec: UseCase, interval: Interval) -> dict[str, DataFrame]:
    """Published clean rows of `interval` and of the spec's lookback before it, by table."""
    reach = Interval(interval.start - spec.lookback, interval.end)
    frames = {}
    for table in spec.clean_tables:
        frame = read_table(spark, f"{CLEAN}.{table.name}")
        frames[table.name] = frame.where(within(table.event_time, reach)) if table.event_time else frame
    return frames


def conform(rows: DataFrame, table: FeatureTable) -> DataFrame:
    """`rows` as the spec declares them: entities, `event_timestamp`, then features, each of its type.

    Raises `SpecError` naming the columns that the transform did not yield.
    """
    wanted = [*table.entities, EVENT_TIMESTAMP, *table.features]
    missing = [name for name in wanted if name not in rows.columns]
    if missing:
        raise SpecError(
            expected=f"the transform to yield {', '.join(wanted)} for feature table {table.name}",
            found=f"no {', '.join(missing)}",
            next_step="make the transform and the spec's feature_tables agree",
        )
    return rows.select(
        *table.entities,
        EVENT_TIMESTAMP,
        *(F.col(name).cast(SPARK_TYPES[type_]).alias(name) for name, type_ in table.features.items()),
    )


def build_features(spark: SparkSession, spec: UseCase, interval: Interval) -> Published:
    """Replace the rows of `interval` in every feature table."""
    frames = load(spec.transform).features(clean_history(spark, spec, interval), interval)
    snapshots = []
    for table in spec.feature_tables:
        name = f"{FEATURES}.{table.name}"
        rows = conform(frames[table.name], table)
        ensure_table(spark, name, rows, EVENT_TIMESTAMP)
        branch = f"build_{interval.key}"
        write_aside(spark, rows, name, EVENT_TIMESTAMP, interval, branch)
        snapshots.append(fast_forward(spark, name, branch))
    return Published(snapshots=tuple(snapshots))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> Published:
        spec, interval = use_case(arguments.use_case), interval_of(arguments)
        return build_features(open_session(settings, f"{spec.name} features {interval.key}"), spec, interval)

    return run_job(job_parser(__doc__), work, argv)


if __name__ == "__main__":
    sys.exit(main())
