"""The audit: Great Expectations on the branch that cleaning wrote; only a branch that passes is published.

Belongs here: running each table's suite over its rows, and saying what failed so that a person can act. Does
not belong here: the expectations (the use case's spec), how they are measured (`spark_jobs.auditing`), or
publishing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the package is imported, which the next lines do

import great_expectations as gx
from great_expectations.core.expectation_validation_result import (
    ExpectationSuiteValidationResult,
    ExpectationValidationResult,
)
from great_expectations.validator.validator import Validator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.errors import AuditError, HistoryError
from airloop.intervals import Interval
from airloop.jobs import run_job
from airloop.references import AuditReport
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import CleanTable, UseCase
from airloop.whole_files import write_whole
from spark_jobs.arguments import interval_of, job_parser
from spark_jobs.auditing.changes import changed_days
from spark_jobs.auditing.data_docs import build_data_docs
from spark_jobs.auditing.expectations import NOT_JUDGED, NOTHING_TO_JUDGE
from spark_jobs.auditing.one_pass import OnePassEngine, slice_for
from spark_jobs.auditing.reference import Reference, read_reference
from spark_jobs.auditing.suite import compared, join_references, suite_of
from spark_jobs.session import open_session
from spark_jobs.tables import CLEAN, snapshot_of, within

SAMPLE_ROWS = 5
BATCH = "interval"


class Audited(NamedTuple):
    """What the audit of one table found."""

    suite: gx.ExpectationSuite
    result: ExpectationSuiteValidationResult
    failures: tuple[str, ...]
    """Each failed expectation in words."""
    not_judged: tuple[str, ...]
    """The expectations that had no published history to compare with."""


def audit_table(
    rows: DataFrame, table: CleanTable, interval: Interval, reference: Reference, about_rows: int
) -> Audited:
    """Validate the `rows` of `interval`, of which there are `about_rows`, against the table's suite."""
    suite = suite_of(table, interval, reference)
    engine = OnePassEngine(
        spark=rows.sparkSession, sampled=slice_for(about_rows, f"{table.name} {interval.key}")
    )
    engine.load_batch_data(BATCH, rows)
    validator = Validator(execution_engine=engine)
    validator.metrics_calculator.show_progress_bars = False
    results = validator.graph_validate(
        [expectation.configuration for expectation in suite.expectations],
        runtime_configuration={"catch_exceptions": True, "result_format": {"result_format": "BASIC"}},
    )
    failures = []
    for result in results:
        if not result.success:
            sample = offending_rows(rows, result, engine)
            column = result.expectation_config.kwargs.get("column")
            if sample and column in sample[0] and "partial_unexpected_list" in result.result:
                result.result["partial_unexpected_list"] = [row[column] for row in sample]
            failures.append(describe(table.name, result, sample))
    not_judged = [
        f"{table.name}: {_named(result)}"
        for result in results
        if result.result.get("observed_value") in (NOT_JUDGED, NOTHING_TO_JUDGE)
    ]
    passed = len(results) - len(failures)
    return Audited(
        suite=suite,
        result=ExpectationSuiteValidationResult(
            success=not failures,
            results=results,
            suite_name=table.name,
            statistics={
                "evaluated_expectations": len(results),
                "successful_expectations": passed,
                "unsuccessful_expectations": len(failures),
                "success_percent": 100 * passed / len(results),
            },
        ),
        failures=tuple(failures),
        not_judged=tuple(not_judged),
    )


def offending_rows(
    rows: DataFrame, result: ExpectationValidationResult, engine: OnePassEngine
) -> list[dict[str, Any]]:
    """Up to `SAMPLE_ROWS` rows behind a failed expectation; none where it is about no single rows."""
    kwargs = result.expectation_config.kwargs
    if not result.result:
        # It could not be evaluated, and looking for its rows would fail the same way.
        return []
    if result.expectation_config.type == "expect_key_to_be_unique":
        repeated = (
            rows.groupBy(*kwargs["columns"]).count().where("count > 1").drop("count").limit(SAMPLE_ROWS)
        )
        found = repeated.join(rows, kwargs["columns"]).orderBy(*kwargs["columns"])
    elif "condition" in kwargs:
        found = rows.where(~F.expr(kwargs["condition"]))
    else:
        expectation = result.expectation_config.to_domain_obj()
        wanted = expectation.get_validation_dependencies(engine).metric_configurations.values()
        breaks = [engine.conditions[m.id] for m in wanted if m.id in engine.conditions]
        # The first counts the nulls, which most expectations let pass.
        if not breaks:
            return []
        found = rows.where(breaks[-1])
    return [row.asDict() for row in found.limit(SAMPLE_ROWS).collect()]


def describe(table: str, result: ExpectationValidationResult, sample: Sequence[dict[str, Any]]) -> str:
    """One failed expectation in words: which, what was observed, and rows that show it."""
    config, found = result.expectation_config, result.result
    if "element_count" in found:
        observed = f"{found['unexpected_count']} of {found['element_count']} rows"
        observed += f", such as {_shortened(found.get('partial_unexpected_list') or [])}"
    elif "observed_value" not in found:
        observed = f"an error: {_exception_of(result)}"
    else:
        observed = f"{_shortened(found['observed_value'])}"
    text = f"{table}: {_named(result)} ({config.notes}); observed {observed}"
    return text + (f"; rows {json.dumps(list(sample), default=str)}" if sample else "")


def _named(result: ExpectationValidationResult) -> str:
    """The expectation and what it expects."""
    config = result.expectation_config
    arguments = {
        key: _shortened(value)
        for key, value in config.kwargs.items()
        if key not in ("batch_id", "code", "names", "period_seconds") and value is not None
    }
    return f"{config.type} {json.dumps(arguments, default=str)}"


def _shortened(values: Any) -> Any:
    if isinstance(values, list) and len(values) > SAMPLE_ROWS:
        return [*values[:SAMPLE_ROWS], "..."]
    if isinstance(values, dict) and len(values) > SAMPLE_ROWS:
        return {**dict(list(values.items())[:SAMPLE_ROWS]), "...": "..."}
    return values


def _exception_of(result: ExpectationValidationResult) -> str:
    """What went wrong when the expectation was evaluated; Great Expectations nests it by metric."""
    info = result.exception_info or {}
    infos = [info] if "exception_message" in info else [i for i in info.values() if isinstance(i, dict)]
    return "; ".join(str(i.get("exception_message")) for i in infos) or "no result"


def audit(
    spark: SparkSession, spec: UseCase, interval: Interval, branch: str, settings: Settings
) -> AuditReport:
    """Audit every clean table on `branch`; the report and the Data Docs are written whatever the outcome.

    Raises `AuditError` with each failed expectation, what was observed, and sample rows.
    """
    report = report_on(
        {table.name: audit_on_branch(spark, spec, table, interval, branch) for table in spec.clean_tables},
        spec,
        interval,
        branch,
        settings,
    )
    changed = {table.name: changed_days(spark, table, interval, branch) for table in spec.clean_tables}
    return report.model_copy(update={"changed_days": {name: days for name, days in changed.items() if days}})


def audit_on_branch(
    spark: SparkSession, spec: UseCase, table: CleanTable, interval: Interval, branch: str
) -> Audited:
    """Audit the rows of `interval` that `branch` of `table` has, beside what its `main` has before them.

    Tables that it refers to are read from the same branch. Raises `HistoryError` where there is none.
    """
    rows, about_rows = read_branch(spark, table, branch)
    if table.event_time is not None:
        rows = rows.where(within(table.event_time, interval))
    others = {}
    for link in table.references:
        other = spec.clean_table(link.table)
        others[link.table] = (read_branch(spark, other, branch)[0], other)
    reference = read_reference(spark, table, interval, compared(table), about_rows)
    joined = join_references(rows, table, interval, others)
    return audit_table(joined, table, interval, reference, about_rows)


def report_on(
    audited: Mapping[str, Audited], spec: UseCase, interval: Interval, branch: str, settings: Settings
) -> AuditReport:
    """Write what was found on the tables of `audited`; raises `AuditError` when any expectation failed."""
    failures = [failure for table in audited.values() for failure in table.failures]
    not_judged = [name for table in audited.values() for name in table.not_judged]
    count = sum(len(table.result.results) for table in audited.values())
    folder = settings.reports_dir / spec.name
    docs = build_data_docs(
        folder / "data_docs" / interval.key,
        [(table.suite, table.result) for table in audited.values()],
        f"{spec.name} {interval.key}",
        failures,
    )
    report = folder / "audits" / f"{interval.key}.json"
    documents = {name: table.result.to_json_dict() for name, table in audited.items()}
    write_whole(
        report,
        json.dumps(
            {
                "branch": branch,
                "failures": failures,
                "not_judged": not_judged,
                "data_docs": docs.as_uri(),
                "tables": documents,
            },
            default=str,
        ),
    )
    if failures:
        raise AuditError(
            expected=f"all {count} expectations on branch {branch} to hold",
            found=f"{len(failures)} that do not: " + " | ".join(failures),
            next_step=f"main is untouched; look at the branch, at {docs} and at {report}, mend the source or "
            "the expectation, and run the interval again",
            report_uri=docs.as_uri(),
        )
    return AuditReport(
        branch=branch,
        expectations=count,
        report_uri=report.as_uri(),
        data_docs_uri=docs.as_uri(),
        not_judged=len(not_judged),
    )


def read_branch(spark: SparkSession, table: CleanTable, branch: str) -> tuple[DataFrame, int]:
    """All rows of `table` as `branch` has them, and how many of them cleaning wrote.

    Raises `HistoryError` when cleaning did not write the branch.
    """
    name = f"{CLEAN}.{table.name}"
    try:
        written = snapshot_of(spark, name, ref=branch) if spark.catalog.tableExists(name) else None
    except HistoryError:
        written = None
    if written is None:
        raise HistoryError(
            expected=f"a branch {branch} of {name}",
            found="none",
            next_step="run the clean job for this interval first",
        )
    return spark.read.option("branch", branch).table(name), written.rows


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
