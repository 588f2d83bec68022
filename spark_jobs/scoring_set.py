"""Job: what a batch scoring asks the champion: each event of an interval, with the features known by then.

    python -m spark_jobs.scoring_set --use-case NAME --start 2026-11-20 --end 2026-11-21 [--result FILE]

Belongs here: the events, Feast's point-in-time join, the table. Does not belong here: asking a model
(`serving.score`).

An event belongs to the interval that its prediction time lies in. Its features are those of that moment, by
the same join as a training set's; so a day that is scored late or again gets the same rows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.errors import SpecError
from airloop.intervals import Interval
from airloop.jobs import run_job
from airloop.lakehouse.provenance import signature
from airloop.references import ScoringSet
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import LOCAL_SUFFIX, UseCase
from feature_repo.store import open_store
from spark_jobs.arguments import interval_of, job_parser
from spark_jobs.history import EVENT_TIMESTAMP
from spark_jobs.request_columns import request_column
from spark_jobs.session import open_session
from spark_jobs.tables import CLEAN, SCORING, ensure_table, fast_forward, read_table, within, write_aside
from spark_jobs.training_set import join_features, model_columns


def events(spark: SparkSession, spec: UseCase, interval: Interval) -> DataFrame:
    """The events whose prediction time lies in `interval`, with the request's fields and that time.

    Raises `SpecError` for a use case without an event table.
    """
    if spec.event_table is None:
        raise SpecError(
            expected=f"an event_table in the spec of {spec.name}: a clean table with a row for each event",
            found="none",
            next_step="name it; only what is predicted on request can do without",
        )
    seconds = int(spec.prediction_lead.total_seconds())
    names = [field.name for field in spec.request]
    names += [f"{field.name}{LOCAL_SUFFIX}" for field in spec.request if field.type == "datetime"]
    return (
        read_table(spark, f"{CLEAN}.{spec.event_table}")
        .withColumn(EVENT_TIMESTAMP, F.col(spec.event_field) - F.expr(f"INTERVAL {seconds} SECONDS"))
        .where(within(EVENT_TIMESTAMP, interval))
        .select(*names, EVENT_TIMESTAMP)
    )


def build(spark: SparkSession, spec: UseCase, interval: Interval, settings: Settings) -> ScoringSet:
    """Write the scoring set of `interval` in the place of what was there."""
    joined = join_features(open_store(settings), spec, events(spark, spec, interval))
    rows = joined.select(
        *model_columns(spec),
        F.col(EVENT_TIMESTAMP).alias("prediction_time"),
        request_column(spec).alias("request"),
    )
    table, branch = f"{SCORING}.{spec.name}_requests", f"build_{interval.start:%Y%m%d}_{interval.end:%Y%m%d}"
    ensure_table(spark, table, rows, "prediction_time")
    write_aside(
        spark, rows, table, "prediction_time", interval, branch, properties=signature(spec.name, interval)
    )
    written = fast_forward(spark, table, branch)
    return ScoringSet(
        table=table,
        snapshot_id=written.snapshot_id,
        rows=written.rows,
        start=interval.start.isoformat(),
        end=interval.end.isoformat(),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> ScoringSet:
        spec, interval = use_case(arguments.use_case), interval_of(arguments)
        spark = open_session(settings, f"{spec.name} scoring set {interval.start:%Y-%m-%d}")
        return build(spark, spec, interval, settings)

    return run_job(job_parser(__doc__), work, argv)


if __name__ == "__main__":
    sys.exit(main())
