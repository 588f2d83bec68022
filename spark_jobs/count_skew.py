"""Job: the features that were served, against those that training would have had at the same moment.

    python -m spark_jobs.count_skew --use-case NAME --start 2026-11-20 --end 2026-11-21 [--result FILE]

Belongs here: joining the prediction log to the offline features on Spark, and comparing row by row. Does not
belong here: what the counts say (`airloop.monitoring.skew`).

A served value is compared with the offline one of the moment when it could have been known: the prediction
time, or the moment of the answer where that was a little earlier. Who asks long before gets features that no
training example has: that is the client's choice, and is not compared. Neither is what a version was not
given. The join is the training set's own.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.intervals import ONE_DAY, Interval, parse_instant
from airloop.jobs import run_job
from airloop.lakehouse.catalog import open_catalog
from airloop.monitoring.silences import silences_of
from airloop.monitoring.skew import judged_rows, last_judged_before, replace_skew, said_of
from airloop.prediction_log import record, variants
from airloop.references import JudgedSkew
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import LOCAL_SUFFIX, RequestField, UseCase
from feature_repo.store import open_store
from spark_jobs.arguments import interval_of, job_parser
from spark_jobs.history import EVENT_TIMESTAMP
from spark_jobs.session import open_session
from spark_jobs.tables import FEATURES, read_table, within
from spark_jobs.training_set import join_features

log = logging.getLogger(__name__)

_TYPES = {"string": "string", "integer": "long", "number": "double", "datetime": "string"}
_SERVED = "_served"
_PREDICTION_TIME = "_prediction_time"
MOST_AHEAD = timedelta(hours=1)
"""How long before the prediction time an answer may have been asked for."""


def served(spark: SparkSession, spec: UseCase, span: Interval) -> DataFrame:
    """The answers of `span` that clients got: the request's fields, what was served, and as of when."""
    rows = spark.table(record.TABLE).where(
        within("predicted_at", span)
        & (F.col("use_case") == spec.name)
        & F.col("error").isNull()
        & (F.col("variant") != variants.SHADOW)
        & (F.col("prediction_time") - F.col("predicted_at") <= MOST_AHEAD)
    )
    request = F.from_json("request", ", ".join(f"`{f.name}` {_TYPES[f.type]}" for f in spec.request))
    fields = [column for field in spec.request for column in _fields(request, field)]
    return rows.select(
        *fields,
        F.from_json("features", "map<string, string>").alias(_SERVED),
        F.date_trunc("day", "predicted_at").alias("day"),
        F.col("prediction_time").alias(_PREDICTION_TIME),
        F.least("prediction_time", "predicted_at").alias(EVENT_TIMESTAMP),
    )


def _fields(request: Column, field: RequestField) -> list[Column]:
    """A field of the request as clean tables have it: a datetime as the instant, and as the wall clock."""
    value = request[field.name]
    if field.type != "datetime":
        return [value.alias(field.name)]
    # The wall clock is what stands before the offset; the session is in UTC.
    return [
        value.cast("timestamp").alias(field.name),
        F.substring(value, 1, 19).cast("timestamp").alias(f"{field.name}{LOCAL_SUFFIX}"),
    ]


def compared(joined: DataFrame, spec: UseCase) -> DataFrame:
    """Rows of `day`, `feature` and the counts of `airloop.monitoring.skew`, of served and offline values."""
    tolerance = spec.monitoring.skew.relative_tolerance
    parts = []
    for item in spec.inputs:
        if item.request_field is not None:
            continue
        online, offline = F.col(_SERVED)[item.name], F.col(item.name)
        difference = F.lit(None).cast("double")
        if item.type == "string":
            both = online.isNotNull() & offline.isNotNull()
            unequal = both & (online != offline.cast("string"))
        else:
            online, offline = _served_number(online, item.type), _offline_number(offline, item.type)
            both = online.isNotNull() & offline.isNotNull()
            difference = F.when(both, F.abs(online - offline))
            size = F.greatest(F.abs(online), F.abs(offline), F.lit(1.0))
            unequal = both & (difference > tolerance * size)
        parts.append(
            F.struct(
                F.lit(item.name).alias("feature"),
                F.array_contains(F.map_keys(_SERVED), item.name).alias("given"),
                unequal.alias("unequal"),
                (online.isNotNull() & offline.isNull()).alias("only_online"),
                (online.isNull() & offline.isNotNull()).alias("only_offline"),
                difference.alias("difference"),
            )
        )
    each = joined.select("day", F.explode(F.array(*parts)).alias("one")).select("day", "one.*").where("given")

    def share(*names: str) -> Column:
        return F.sum(reduce(lambda a, b: a | b, [F.col(name) for name in names]).cast("long"))

    return each.groupBy("day", "feature").agg(
        F.count("*").alias("rows"),
        share("unequal", "only_online", "only_offline").alias("unequal"),
        share("only_online").alias("only_online"),
        share("only_offline").alias("only_offline"),
        F.mean("difference").alias("mean_absolute_difference"),
    )


def _served_number(text: Column, kind: str) -> Column:
    """A served number, null where there was none; an instant is a time in ISO 8601, or seconds."""
    if kind == "double":
        return text.cast("double")
    return F.coalesce(text.try_cast("double"), text.try_cast("timestamp").cast("long").cast("double"))


def _offline_number(value: Column, kind: str) -> Column:
    """An offline number, null where there is none: NaN is a missing value, as it is in serving."""
    number = value.cast("double") if kind == "double" else value.cast("long").cast("double")
    return F.when(~F.isnan(number), number)


def count_skew(settings: Settings, spec: UseCase, span: Interval, at: datetime | None = None) -> JudgedSkew:
    """Compare the days of `span`, in place of what the table had of them; what is new on the last one.

    Silences count as of `at`, by default the end of the span. Safe to repeat and to kill: days are replaced,
    all in one commit.
    """
    catalog = open_catalog(settings)
    spark = open_session(settings, f"{spec.name} skew {span.start:%Y-%m-%d}")
    if not spark.catalog.tableExists(record.TABLE):
        return JudgedSkew(skipped="nothing was asked yet: there is no prediction log")
    if (missing := _not_published(spark, spec, span)) is not None:
        return JudgedSkew(skipped=f"{missing}, so every served feature would be skew")
    answers = served(spark, spec, span).cache()
    counted: list[dict[str, Any]] = []
    # Feast looks for the first and the last moment that is asked about.
    if not answers.isEmpty():
        joined = join_features(open_store(settings), spec, answers, prediction_time=_PREDICTION_TIME)
        counted = compared(joined, spec).toArrow().to_pylist()
    rows = judged_rows(counted, spec.monitoring)
    replace_skew(catalog, spec, span, rows)
    found = said_of(
        [row for row in rows if row["day"] == span.end - ONE_DAY],
        last_judged_before(catalog, spec, span.end - ONE_DAY),
        silences_of(catalog, spec),
        at or span.end,
    )
    for line in found.lines:
        log.info("%s", line)
    return found


def _not_published(spark: SparkSession, spec: UseCase, span: Interval) -> str | None:
    """Why there is nothing to compare the last day of `span` with, if there is not."""
    last = Interval(span.end - ONE_DAY, span.end)
    for table in spec.feature_tables:
        name = f"{FEATURES}.{table.name}"
        there = spark.catalog.tableExists(name)
        if not there or read_table(spark, name).where(within(EVENT_TIMESTAMP, last)).isEmpty():
            return f"{name} has no row of {last.start:%Y-%m-%d} yet"
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> JudgedSkew:
        at = parse_instant(arguments.at) if arguments.at else None
        return count_skew(settings, use_case(arguments.use_case), interval_of(arguments), at)

    parser = job_parser(__doc__)
    parser.add_argument("--at", help="the present moment, ISO 8601, UTC; by default the end")
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
