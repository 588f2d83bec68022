"""The audit: Great Expectations on the branch that cleaning wrote; only a branch that passes is published.

Belongs here: turning a spec's expectations into a suite, running it, and saying what failed so that a person
can act. Does not belong here: the expectations (the use case's spec), or publishing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the package is imported, which the next lines do

import great_expectations as gx
from great_expectations import expectations as gxe
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.errors import AuditError, HistoryError, SpecError
from airloop.intervals import Interval
from airloop.jobs import run_job, write_whole
from airloop.references import AuditReport
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import CleanTable, Expectation, UseCase
from spark_jobs.arguments import interval_of, job_parser
from spark_jobs.session import open_session
from spark_jobs.tables import CLEAN, within

DAY = "_day"
SAMPLE_ROWS = 5


def volume_expectations(table: CleanTable, interval: Interval) -> tuple[Expectation, ...]:
    """What every table owes its interval: enough rows, and some on each day."""
    if table.event_time is None:
        return (
            Expectation(
                type="ExpectTableRowCountToBeBetween",
                arguments={"min_value": table.min_rows_per_day},
                why="reference data came empty or truncated",
            ),
        )
    days = [f"{interval.start + timedelta(days=n):%Y-%m-%d}" for n in range(interval.days)]
    return (
        Expectation(
            type="ExpectTableRowCountToBeBetween",
            arguments={"min_value": table.min_rows_per_day * interval.days},
            why="too little data came: the feed may be stale or truncated",
        ),
        Expectation(
            type="ExpectColumnDistinctValuesToContainSet",
            arguments={"column": DAY, "value_set": days},
            why="a day has no data at all",
        ),
    )


def suite_of(table: CleanTable, interval: Interval) -> gx.ExpectationSuite:
    """The table's expectations as a Great Expectations suite; raises `SpecError` for one it does not know."""
    suite = gx.ExpectationSuite(name=table.name)
    for expectation in (*volume_expectations(table, interval), *table.expectations):
        try:
            made = getattr(gxe, expectation.type)(**expectation.arguments, notes=expectation.why)
        except (AttributeError, ValueError) as error:
            raise SpecError(
                expected=f"{expectation.type} to be an expectation that Great Expectations knows",
                found=str(error).splitlines()[0],
                next_step=f"correct the expectations of clean table {table.name} in the use case's spec",
            ) from None
        suite.add_expectation(made)
    return suite


def audit_table(
    rows: DataFrame, table: CleanTable, interval: Interval
) -> gx.ExpectationSuiteValidationResult:
    """Validate the `rows` of `interval` against the table's suite."""
    if table.event_time is not None:
        rows = rows.withColumn(DAY, F.date_format(table.event_time, "yyyy-MM-dd"))
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_spark(name="audit").add_dataframe_asset(name=table.name)
    batch = asset.add_batch_definition_whole_dataframe("interval").get_batch({"dataframe": rows})
    return batch.validate(suite_of(table, interval), result_format="BASIC")


def offending_rows(rows: DataFrame, result: ExpectationValidationResult) -> list[dict[str, Any]]:
    """Up to `SAMPLE_ROWS` rows behind a failed column expectation; none where it has no single rows."""
    column = result.expectation_config.kwargs.get("column")
    if column is None or column not in rows.columns:
        return []
    values = [v for v in result.result.get("partial_unexpected_list") or [] if v is not None]
    if values:
        rows = rows.where(F.col(column).isin(values[:SAMPLE_ROWS]))
    elif result.result.get("unexpected_count"):
        rows = rows.where(F.col(column).isNull())
    else:
        return []
    return [row.asDict() for row in rows.limit(SAMPLE_ROWS).collect()]


def describe(table: str, result: ExpectationValidationResult, sample: Sequence[dict[str, Any]]) -> str:
    """One failed expectation in words: which, what was observed, and rows that show it."""
    config, found = result.expectation_config, result.result
    arguments = {k: v for k, v in config.kwargs.items() if k not in ("batch_id", "value_set")}
    if "value_set" in config.kwargs:
        arguments["value_set"] = _shortened(config.kwargs["value_set"])
    if "unexpected_count" in found:
        observed = f"{found['unexpected_count']} of {found['element_count']} rows"
        observed += f", such as {_shortened(found.get('partial_unexpected_list') or [])}"
    elif result.exception_info.get("raised_exception"):
        observed = f"an error: {result.exception_info.get('exception_message')}"
    else:
        observed = f"{_shortened(found.get('observed_value'))}"
    text = (
        f"{table}: {config.type} {json.dumps(arguments, default=str)} ({config.notes}); observed {observed}"
    )
    return text + (f"; rows {json.dumps(list(sample), default=str)}" if sample else "")


def _shortened(values: Any) -> Any:
    return (
        [*values[:SAMPLE_ROWS], "..."] if isinstance(values, list) and len(values) > SAMPLE_ROWS else values
    )


def audit(
    spark: SparkSession, spec: UseCase, interval: Interval, branch: str, settings: Settings
) -> AuditReport:
    """Audit every clean table on `branch`; the report is written whatever the outcome.

    Raises `AuditError` with each failed expectation, what was observed, and sample rows.
    """
    documents, failures, count = {}, [], 0
    for table in spec.clean_tables:
        rows = read_branch(spark, table, interval, branch)
        result = audit_table(rows, table, interval)
        documents[table.name] = result.to_json_dict()
        count += len(result.results)
        failures += [
            describe(table.name, failed, offending_rows(rows, failed)) for failed in _failed(result.results)
        ]
        spark.catalog.clearCache()
    report = settings.reports_dir / spec.name / "audits" / f"{interval.key}.json"
    write_whole(
        report, json.dumps({"branch": branch, "failures": failures, "tables": documents}, default=str)
    )
    if failures:
        raise AuditError(
            expected=f"all {count} expectations on branch {branch} to hold",
            found=f"{len(failures)} that do not: " + " | ".join(failures),
            next_step=f"main is untouched; look at the branch and at {report}, mend the source or the "
            "expectation, and run the interval again",
        )
    return AuditReport(branch=branch, expectations=count, report_uri=report.as_uri())


def read_branch(spark: SparkSession, table: CleanTable, interval: Interval, branch: str) -> DataFrame:
    """The rows of `interval` on `branch`; raises `HistoryError` when cleaning did not write it."""
    name = f"{CLEAN}.{table.name}"
    if (
        not spark.catalog.tableExists(name)
        or spark.sql(f"SELECT 1 FROM {name}.refs WHERE name = '{branch}'").isEmpty()
    ):
        raise HistoryError(
            expected=f"a branch {branch} of {name}",
            found="none",
            next_step="run the clean job for this interval first",
        )
    rows = spark.read.option("branch", branch).table(name)
    return rows.where(within(table.event_time, interval)) if table.event_time else rows


def _failed(results: Iterable[ExpectationValidationResult]) -> list[ExpectationValidationResult]:
    return [result for result in results if not result.success]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = job_parser(__doc__)
    parser.add_argument("--branch", required=True, help="the branch that the clean job wrote")

    def work(arguments: argparse.Namespace, settings: Settings) -> AuditReport:
        spec, interval = use_case(arguments.use_case), interval_of(arguments)
        spark = open_session(settings, f"{spec.name} audit {interval.key}")
        return audit(spark, spec, interval, arguments.branch, settings)

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
