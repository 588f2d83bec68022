"""Benchmark: the audit of 5 million rows beside one scan of them.

    make bench-audit        (or: python -m benchmarks.audit [--rows 5000000] [--repeats 5])

The rows are the flights of 2013, copied until there are enough: a copy departs some minutes later under an id
of its own, so that every expectation holds, as it does on almost every day in production. January is the
published history; the rest is what is audited. Both sides read the same Iceberg table, in one Spark session
with the settings' heap, in turns, after one unmeasured turn each:

- *scan*: every column that the audited table has, decoded and thrown away (Spark's `noop` sink).
- *audit*: `spark_jobs.audit.audit_on_branch` whole, as the DAG runs it: history, joined references, every
  expectation of `clean.flights`, Great Expectations' own work.

Ends with one line of JSON: `audit_overhead_ratio` is the median audit's seconds over the median scan's, minus
one; `spark_jobs` is how many jobs one audit starts. Exits with 1 when the overhead is above
`MOST_OVERHEAD`, when an expectation fails, or when there are fewer rows or expectations than asked for.

Belongs here: the measure. Does not belong here: anything that the audit needs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.dotted import load
from airloop.intervals import Interval
from airloop.settings import Settings, load_settings
from airloop.sources.contract import check_contract, record_schema
from airloop.sources.nycflights import NycFlightsReplay
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from spark_jobs.audit import Audited, audit_on_branch
from spark_jobs.raw_tables import raw_rows
from spark_jobs.session import open_session
from spark_jobs.tables import CLEAN, append, ensure_table, within

MOST_OVERHEAD: Final = 0.25
FEWEST_EXPECTATIONS: Final = 40
BRANCH: Final = "audit"
TABLE: Final = "flights"
REFERENCED: Final = "planes"
YEAR: Final = Interval(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 12, 30, tzinfo=UTC))
AUDITED: Final = Interval(datetime(2013, 1, 29, tzinfo=UTC), YEAR.end)


def clean_tables(spark: SparkSession, spec: UseCase, settings: Settings) -> dict[str, DataFrame]:
    """The year's clean flights and the register of planes, by the use case's own transform."""
    adapter = NycFlightsReplay(settings, {}, None)
    records = {}
    for feed in spec.feeds:
        file = settings.state_dir / f"{feed.name}.parquet"
        wanted = feed.name in (TABLE, REFERENCED)
        with pq.ParquetWriter(file, record_schema(feed)) as writer:
            for delivery in adapter.read(feed, YEAR) if wanted else ():
                writer.write_table(check_contract(feed, delivery.records))
        records[feed.name] = raw_rows(spark.read.parquet(str(file)), feed, "bench")
    frames: dict[str, DataFrame] = load(spec.transform).clean(records)
    return {name: frames[name] for name in (TABLE, REFERENCED)}


def copied(flights: DataFrame, copies: int) -> DataFrame:
    """Each flight `copies` times, a minute later each time, under an id of its own."""
    later = F.make_dt_interval(mins=F.col("copy"))
    times = (
        "scheduled_departure",
        "scheduled_departure_local",
        "scheduled_arrival",
        "scheduled_arrival_local",
    )
    number = (F.col("flight_number") * 100 + F.col("copy")).cast("string")
    return (
        flights.crossJoin(flights.sparkSession.range(copies).withColumnRenamed("id", "copy"))
        .withColumns(
            {
                "flight_id": F.concat_ws(
                    "-",
                    F.substring_index("flight_id", "-", 1),
                    F.concat("carrier", number),
                    "origin",
                    "dest",
                ),
                **{name: F.col(name) + later for name in times},
            }
        )
        .drop("copy")
    )


def prepare(spark: SparkSession, spec: UseCase, settings: Settings, rows: int) -> int:
    """Write the tables and their branches; returns how many rows are audited."""
    frames = clean_tables(spark, spec, settings)
    once = frames[TABLE].where(within("published_at", AUDITED)).count()
    frames[TABLE] = copied(frames[TABLE], -(-rows // once))
    for name, frame in frames.items():
        table = f"{CLEAN}.{name}"
        ensure_table(spark, table, frame, spec.clean_table(name).event_time)
        append(frame, table, {})
        spark.sql(f"ALTER TABLE {spark.catalog.currentCatalog()}.{table} CREATE BRANCH {BRANCH}")
    return audited_rows(spark).count()


def audited_rows(spark: SparkSession) -> DataFrame:
    """The rows that the audit is about."""
    return (
        spark.read.option("branch", BRANCH).table(f"{CLEAN}.{TABLE}").where(within("published_at", AUDITED))
    )


def scan(spark: SparkSession) -> None:
    """One scan of all their columns."""
    audited_rows(spark).write.format("noop").mode("overwrite").save()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that `work` takes, and what it returns."""
    began = time.monotonic()
    outcome = work()
    return time.monotonic() - began, outcome


def jobs_of(spark: SparkSession, work: Callable[[], Any]) -> int:
    """How many Spark jobs `work` starts."""
    context = spark.sparkContext
    context.setJobGroup("counted", "counted")
    work()
    context.setLocalProperty("spark.jobGroup.id", None)
    return len(context.statusTracker().getJobIdsForGroup("counted"))


def measure(spark: SparkSession, spec: UseCase, repeats: int) -> dict[str, Any]:
    """Both sides in turns."""
    table = spec.clean_table(TABLE)

    def audit() -> Audited:
        return audit_on_branch(spark, spec, table, AUDITED, BRANCH)

    scan(spark)
    jobs = jobs_of(spark, audit)
    scans, audits = [], []
    for _ in range(repeats):
        seconds, _none = timed(lambda: scan(spark))
        scans.append(round(seconds, 2))
        seconds, found = timed(audit)
        audits.append(round(seconds, 2))
        print(f"scan {scans[-1]:.2f} s, audit {audits[-1]:.2f} s", flush=True)
        if found.failures:
            raise SystemExit(
                "the audit failed, so this is not what a sound day costs:\n" + "\n".join(found.failures)
            )
    return {
        "audit_overhead_ratio": round(median(audits) / median(scans) - 1, 3),
        "expectations": len(found.result.results),
        "scan_seconds": scans,
        "audit_seconds": audits,
        "spark_jobs": jobs,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="The audit of many rows beside one scan of them.")
    parser.add_argument("--rows", type=int, default=5_000_000, help="at least so many are audited")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    arguments = parser.parse_args(argv)
    deployment = load_settings()
    state: Path = deployment.state_dir / "bench" / "audit"
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    (state / "jars").symlink_to(deployment.jars_dir)
    settings = deployment.model_copy(update={"state_dir": state})
    spec = use_case("flight_delay")
    spark = open_session(settings, "audit benchmark")
    try:
        rows = prepare(spark, spec, settings, arguments.rows)
        print(f"{rows} rows", flush=True)
        figures = {**measure(spark, spec, arguments.repeats), "rows": rows}
    finally:
        spark.stop()
        shutil.rmtree(state, ignore_errors=True)
    print(json.dumps(figures))
    enough = rows >= arguments.rows and figures["expectations"] >= FEWEST_EXPECTATIONS
    return 0 if enough and figures["audit_overhead_ratio"] <= MOST_OVERHEAD else 1


if __name__ == "__main__":
    sys.exit(main())
