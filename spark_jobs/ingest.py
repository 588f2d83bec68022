"""Ingestion: a source's records of an interval, appended to the raw tables as they were received.

Belongs here: the contract check, deduplication by source key and offset, the append. Does not belong here:
typing or judging the data (`clean`, `audit`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.dotted import load
from airloop.intervals import Interval
from airloop.jobs import run_job
from airloop.references import Ingested, TableSnapshot
from airloop.settings import Settings
from airloop.sources.contract import SOURCE_KEY, SOURCE_OFFSET, SourceAdapter, check_contract
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import Feed, UseCase
from spark_jobs.arguments import interval_of, job_parser
from spark_jobs.session import open_session
from spark_jobs.tables import RAW, ensure_table, snapshot_of, within


def new_records(delivered: DataFrame, there: DataFrame | None, feed: Feed) -> DataFrame:
    """The records of `delivered` that `there` (if anything is) lacks, each once, with their source key.

    A record is the same when its source key and its offset are; a correction has another offset.
    """
    key = F.concat_ws("|", *(F.col(name).cast("string") for name in feed.key))
    identity = [SOURCE_KEY, SOURCE_OFFSET]
    fresh = delivered.withColumn(SOURCE_KEY, key).dropDuplicates(identity)
    if there is not None:
        fresh = fresh.join(there.select(identity), identity, "left_anti")
    return fresh.select(*(column.name for column in feed.columns), SOURCE_KEY, SOURCE_OFFSET)


def ingest(spark: SparkSession, spec: UseCase, interval: Interval, settings: Settings) -> Ingested:
    """Append what the source delivers for `interval` to each feed's raw table.

    All feeds are read and checked before the first is written. Raises `SourceError` when the source breaks
    its contract.
    """
    adapter: SourceAdapter = load(spec.source.adapter)(settings, spec.source.options)
    delivered = {feed: check_contract(feed, adapter.read(feed, interval)) for feed in spec.source.feeds}
    snapshots, duplicates = [], 0
    for feed, records in delivered.items():
        frame = spark.createDataFrame(records)
        table = f"{RAW}.{feed.name}"
        shape = frame.withColumn(SOURCE_KEY, F.lit("")).select(
            *(column.name for column in feed.columns), SOURCE_KEY, SOURCE_OFFSET
        )
        ensure_table(spark, table, shape, feed.event_time)
        there = spark.table(table)
        if feed.event_time is not None:
            there = there.where(within(feed.event_time, interval))
        if there.isEmpty():
            rows = append(spark, new_records(frame, None, feed), table) if records.num_rows else 0
        else:
            fresh = new_records(frame, there, feed).cache()
            rows = 0 if fresh.isEmpty() else append(spark, fresh, table)
            fresh.unpersist()
        duplicates += records.num_rows - rows
        snapshots.append(
            TableSnapshot(table=table, snapshot_id=snapshot_of(spark, table).snapshot_id, rows=rows)
        )
    return Ingested(snapshots=tuple(snapshots), duplicates=duplicates)


def append(spark: SparkSession, rows: DataFrame, table: str) -> int:
    """Append `rows` to `table` in one commit; returns how many there were."""
    rows.writeTo(table).append()
    return snapshot_of(spark, table).rows


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> Ingested:
        spec, interval = use_case(arguments.use_case), interval_of(arguments)
        spark = open_session(settings, f"{spec.name} ingest {interval.key}")
        return ingest(spark, spec, interval, settings)

    return run_job(job_parser(__doc__), work, argv)


if __name__ == "__main__":
    sys.exit(main())
