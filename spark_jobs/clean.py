"""Cleaning: raw records of an interval, typed and written aside on an audit branch of the clean tables.

Belongs here: running a use case's transform and the write of write-audit-publish. Does not belong here: the
transform itself (`spark_jobs.transforms`), the audit, or `main`, which this job never moves.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.dotted import load
from airloop.errors import SpecError
from airloop.intervals import Interval
from airloop.jobs import run_job
from airloop.lakehouse.properties import SOURCE_OFFSETS, json_text
from airloop.lakehouse.provenance import signature
from airloop.references import AuditBranch
from airloop.settings import Settings
from airloop.sources.contract import SOURCE, SOURCE_OFFSET, SOURCE_TIME
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from spark_jobs.arguments import interval_of, job_parser
from spark_jobs.session import open_session
from spark_jobs.tables import CLEAN, RAW, ensure_table, read_table, snapshot_of, within, write_aside


def branch_of(interval: Interval) -> str:
    """The audit branch of `interval`: a rerun replaces it."""
    return f"audit_{interval.key}"


def raw_records(spark: SparkSession, spec: UseCase, interval: Interval) -> dict[str, DataFrame]:
    """The raw records of `interval`, by feed; reference data whole."""
    frames = {}
    for feed in spec.feeds:
        frame = read_table(spark, f"{RAW}.{feed.name}")
        frames[feed.name] = frame.where(within(feed.event_time, interval)) if feed.event_time else frame
    return frames


def read_from(spark: SparkSession, records: Mapping[str, DataFrame]) -> dict[str, Any]:
    """By raw table, its snapshot, and what was read of each source: how many records, which offsets."""
    found = {}
    for feed, frame in records.items():
        table = f"{RAW}.{feed}"
        sources = (
            frame.groupBy(SOURCE)
            .agg(F.count("*"), F.min(SOURCE_OFFSET), F.max(SOURCE_OFFSET), F.max(SOURCE_TIME).cast("string"))
            .collect()
        )
        found[table] = {
            "snapshot": snapshot_of(spark, table).snapshot_id,
            "sources": {
                name: {"records": count, "first": first, "last": last, "latest": latest}
                for name, count, first, last, latest in sources
            },
        }
    return found


def cleaned(spec: UseCase, records: Mapping[str, DataFrame]) -> dict[str, DataFrame]:
    """What the transform makes of raw `records`, by clean table.

    Raises `SpecError` when those are not the spec's tables, or lack the column that places them in time.
    """
    frames: dict[str, DataFrame] = load(spec.transform).clean(records)
    names = {table.name for table in spec.own_clean_tables}
    if set(frames) != names:
        raise SpecError(
            expected=f"{spec.transform}.clean to yield the tables {', '.join(sorted(names))}",
            found=", ".join(sorted(frames)) or "none",
            next_step="make the transform and the spec's clean_tables agree",
        )
    for table in spec.own_clean_tables:
        if table.event_time is not None and table.event_time not in frames[table.name].columns:
            raise SpecError(
                expected=f"{spec.transform}.clean to yield {table.name} with its {table.event_time}",
                found=f"columns {', '.join(frames[table.name].columns)}",
                next_step="keep the column there, or correct event_time in the spec's clean_tables",
            )
    return frames


def clean(spark: SparkSession, spec: UseCase, interval: Interval) -> AuditBranch:
    """Write the clean rows of `interval` to a fresh branch of each clean table.

    The branch starts from `main` and is replaced when there is one already, so that a killed run can be
    repeated. Raises `SpecError` when the transform does not yield the spec's tables.
    """
    branch = branch_of(interval)
    records = raw_records(spark, spec, interval)
    properties = {**signature(spec.name, interval), SOURCE_OFFSETS: json_text(read_from(spark, records))}
    frames = cleaned(spec, records)
    snapshots = []
    for table in spec.clean_tables:
        name = f"{CLEAN}.{table.name}"
        ensure_table(spark, name, frames[table.name], table.event_time, table.renamed)
        snapshots.append(
            write_aside(spark, frames[table.name], name, table.event_time, interval, branch, properties)
        )
    return AuditBranch(branch=branch, snapshots=tuple(snapshots))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> AuditBranch:
        spec, interval = use_case(arguments.use_case), interval_of(arguments)
        return clean(open_session(settings, f"{spec.name} clean {interval.key}"), spec, interval)

    return run_job(job_parser(__doc__), work, argv)


if __name__ == "__main__":
    sys.exit(main())
