"""Benchmark: the audit of 5 million rows beside one scan of them.

    make bench-audit        (or: python -m benchmarks.audit [--rows 5000000] [--repeats 5] [--stock])

The rows are the flights of 2013, copied until there are enough: a copy departs some minutes later under an id
of its own, so that every expectation holds, as it does on almost every day in production. January is the
published history; the rest is what is audited. All sides read the same Iceberg table, in one Spark session
with the settings' cores and heap, in turns, after one unmeasured turn each; seconds are medians:

- *scan*: one Spark job that decodes every column of the audited rows, makes rows of them and throws them away
  (Spark's `noop` sink). Every column is in the suite. `count()` would decode none, so it is no scan.
- *hashed scan*: the same columns, but an `xxhash64` over each row's values in place of the sink. It is slower
  than the sink, because hashing is work too: judging against it would flatter the audit.
- *plain Spark*: one aggregation that counts what breaks the suite's conditions on rows, written by hand,
  without Great Expectations, keys, samples or days: how much of the audit is the conditions themselves.
- *audit*: `spark_jobs.audit.audit_on_branch` whole, as the DAG runs it: history, joined references, every
  expectation of `clean.flights`, Great Expectations' own work, building the results. No reports are written.

Ends with one line of JSON: `audit_overhead_ratio` is the audit's seconds over the scan's, minus one (0.25 is
a quarter on top); `overhead_over` has the same over each of the others. `cpu_seconds` counts the JVM's and
Python's processor time, which other work on the machine disturbs less. `spark_jobs` is how many jobs one
audit starts, `passes` how many rows those read for each audited row, the history's and the references'
included. `--stock` adds one run of Great Expectations' own engine, which caches the batch, over the part of
the suite that it has.

Exits with 1 when the overhead over the scan is above `MOST_OVERHEAD`, when an expectation fails, or when
there are fewer rows or expectations than asked for.

Belongs here: the measure. Does not belong here: anything that the audit needs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import great_expectations as gx
import psutil
import pyarrow.parquet as pq
from great_expectations.execution_engine import SparkDFExecutionEngine
from great_expectations.validator.validator import Validator
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.dotted import load
from airloop.intervals import Interval
from airloop.settings import Settings, load_settings
from airloop.sources.contract import check_contract, record_schema
from airloop.sources.nycflights import NycFlightsReplay
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from benchmarks.spark_work import work_of
from spark_jobs.audit import BATCH, Audited, audit_on_branch
from spark_jobs.auditing.suite import join_references
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


class Took(NamedTuple):
    """What one turn of one side took."""

    seconds: float
    cpu_seconds: float


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


def on_branch(spark: SparkSession, table: str) -> DataFrame:
    """All rows of `table` on the audited branch."""
    return spark.read.option("branch", BRANCH).table(f"{CLEAN}.{table}")


def audited_rows(spark: SparkSession) -> DataFrame:
    """The rows that the audit is about."""
    return on_branch(spark, TABLE).where(within("published_at", AUDITED))


def scan(spark: SparkSession) -> None:
    """One scan of all their columns."""
    audited_rows(spark).write.format("noop").mode("overwrite").save()


def hashed_scan(spark: SparkSession) -> None:
    """One scan that hashes the values of all their columns."""
    rows = audited_rows(spark)
    # No sum: 5 million hashes overflow a long, which ANSI SQL refuses.
    rows.agg(F.bit_xor(F.xxhash64(*rows.columns))).collect()


def plain_spark(spark: SparkSession, spec: UseCase, suite: gx.ExpectationSuite) -> None:
    """Count what breaks each condition on rows of `suite`, in one aggregation."""
    table = spec.clean_table(TABLE)
    others = {REFERENCED: (on_branch(spark, REFERENCED), spec.clean_table(REFERENCED))}
    rows = join_references(audited_rows(spark), table, AUDITED, others)
    broken = [broken_by(item) for item in suite.expectations]
    rows.agg(*(F.count_if(condition) for condition in broken if condition is not None)).collect()


def broken_by(expectation: Any) -> Column | None:
    """What a row meets when it breaks `expectation`; None where that is about more than one row."""
    if hasattr(expectation, "condition"):
        return ~F.expr(expectation.condition)
    column = F.col(getattr(expectation, "column", "*"))
    match type(expectation).__name__:
        case "ExpectColumnValuesToNotBeNull":
            return column.isNull()
        case "ExpectColumnValuesToBeBetween":
            return ~column.between(expectation.min_value, expectation.max_value)
        case "ExpectColumnValuesToBeInSet":
            return ~column.isin(expectation.value_set)
        case "ExpectColumnValuesToMatchRegex":
            return ~column.rlike(expectation.regex)
        case "ExpectColumnValueLengthsToEqual":
            return F.length(column) != expectation.value
        case _:
            return None


def stock_great_expectations(spark: SparkSession, suite: gx.ExpectationSuite) -> dict[str, Any]:
    """One validation of the stock expectations of `suite` by Great Expectations' own engine, as it comes."""
    stock = [item for item in suite.expectations if type(item).__module__.startswith("great_expectations.")]
    rows = audited_rows(spark)
    began = time.monotonic()
    engine = SparkDFExecutionEngine(spark=spark)
    engine.load_batch_data(BATCH, rows)
    validator = Validator(execution_engine=engine)
    validator.metrics_calculator.show_progress_bars = False
    results = validator.graph_validate(
        [item.configuration for item in stock],
        runtime_configuration={"catch_exceptions": True, "result_format": {"result_format": "BASIC"}},
    )
    seconds = time.monotonic() - began
    rows.unpersist()
    return {
        "expectations": len(results),
        "passed": sum(bool(result.success) for result in results),
        "seconds": round(seconds, 2),
    }


def timed(work: Callable[[], Any], processes: Sequence[psutil.Process]) -> tuple[Took, Any]:
    """What `work` takes of the clock and of the `processes`, and what it returns."""
    before, began = cpu_seconds(processes), time.monotonic()
    outcome = work()
    return Took(time.monotonic() - began, cpu_seconds(processes) - before), outcome


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """Processor time that `processes` have had."""
    times = [process.cpu_times() for process in processes]
    return sum(item.user + item.system for item in times)


def measure(spark: SparkSession, spec: UseCase, rows: int, repeats: int, *, stock: bool) -> dict[str, Any]:
    """All sides in turns; raises `SystemExit` when an expectation fails."""
    table = spec.clean_table(TABLE)

    def audit() -> Audited:
        return audit_on_branch(spark, spec, table, AUDITED, BRANCH)

    work, found = work_of(spark, audit)
    suite = found.suite
    sides: dict[str, Callable[[], Any]] = {
        "scan": lambda: scan(spark),
        "hashed_scan": lambda: hashed_scan(spark),
        "plain_spark": lambda: plain_spark(spark, spec, suite),
        "audit": audit,
    }
    here = psutil.Process()
    processes = [here, *here.children(recursive=True)]
    took: dict[str, list[Took]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, side in sides.items():
            one, outcome = timed(side, processes)
            print(f"{name:<12}{one.seconds:7.2f} s{one.cpu_seconds:8.2f} s of processor", flush=True)
            if turn:
                took[name].append(one)
            if name == "audit" and outcome.failures:
                failures = "\n".join(outcome.failures)
                raise SystemExit(f"the audit failed, so this is not what a sound interval costs:\n{failures}")
    medians = {name: median(one.seconds for one in turns) for name, turns in took.items()}
    over = {
        name: round(medians["audit"] / seconds - 1, 3) for name, seconds in medians.items() if name != "audit"
    }
    return {
        "audit_overhead_ratio": over["scan"],
        "expectations": len(found.result.results),
        "rows": rows,
        "overhead_over": over,
        "seconds": {name: round(seconds, 2) for name, seconds in medians.items()},
        "all_seconds": {name: [round(one.seconds, 2) for one in turns] for name, turns in took.items()},
        "cpu_seconds": {
            name: round(median(one.cpu_seconds for one in turns), 2) for name, turns in took.items()
        },
        "spark_jobs": work.jobs,
        "passes": round(work.rows_read / rows, 2),
        "stock_great_expectations": stock_great_expectations(spark, suite) if stock else None,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="The audit of many rows beside one scan of them.")
    parser.add_argument("--rows", type=int, default=5_000_000, help="at least so many are audited")
    parser.add_argument("--repeats", type=int, default=5, help="measured turns of each side")
    parser.add_argument("--stock", action="store_true", help="run Great Expectations' own engine too")
    arguments = parser.parse_args(argv)
    deployment = load_settings()
    bench = deployment.state_dir / "bench"
    bench.mkdir(parents=True, exist_ok=True)
    # One of its own: another run on the same machine must not take it away.
    state = Path(tempfile.mkdtemp(prefix="audit-", dir=bench))
    (state / "jars").symlink_to(deployment.jars_dir)
    settings = deployment.model_copy(update={"state_dir": state})
    spec = use_case("flight_delay")
    spark = open_session(settings, "audit benchmark")
    try:
        rows = prepare(spark, spec, settings, arguments.rows)
        print(f"{rows} rows", flush=True)
        figures = measure(spark, spec, rows, arguments.repeats, stock=arguments.stock)
    finally:
        spark.stop()
        shutil.rmtree(state, ignore_errors=True)
    print(json.dumps(figures))
    enough = rows >= arguments.rows and figures["expectations"] >= FEWEST_EXPECTATIONS
    return 0 if enough and figures["audit_overhead_ratio"] <= MOST_OVERHEAD else 1


if __name__ == "__main__":
    sys.exit(main())
