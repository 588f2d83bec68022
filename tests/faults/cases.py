"""Runs one fault the way it would happen: delivered, ingested, cleaned, audited.

Belongs here: the path of a damaged delivery through the real jobs. Does not belong here: the faults
(`catalogue`), or what is asserted about them.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import SparkSession

from airloop.dotted import load
from airloop.errors import AuditError, SourceError
from airloop.intervals import Interval
from airloop.references import AuditReport
from airloop.settings import Settings
from airloop.use_cases.spec import Source, UseCase
from spark_jobs.audit import audit_on_branch, report_on
from spark_jobs.clean import branch_of, raw_records
from spark_jobs.ingest import ingest
from spark_jobs.tables import CLEAN, write_aside


def faulty(spec: UseCase, feeds: Sequence[str], fault: str | None) -> UseCase:
    """`spec` with a source that delivers `feeds` alone, damaged by `fault`."""
    source = Source(
        name="nycflights",
        adapter="tests.faults.faulty_source:FaultySource",
        feeds=tuple(spec.feed(name) for name in feeds),
        options={"fault": fault or ""},
    )
    return spec.model_copy(update={"sources": (source,)})


def run(
    spark: SparkSession,
    spec: UseCase,
    feeds: Sequence[str],
    fault: str | None,
    interval: Interval,
    settings: Settings,
) -> AuditReport:
    """Deliver `feeds` for `interval` with `fault`, and audit their clean tables beside published history.

    The other feeds stay as they were published. Raises what the jobs raise.
    """
    ingest(spark, faulty(spec, feeds, fault), interval, settings)
    branch = branch_of(interval)
    rows = load(spec.transform).clean(raw_records(spark, spec, interval))
    for table in spec.clean_tables:
        name = f"{CLEAN}.{table.name}"
        if table.name in feeds:
            write_aside(spark, rows[table.name], name, table.event_time, interval, branch)
        else:
            spark.sql(
                f"ALTER TABLE {spark.catalog.currentCatalog()}.{name} CREATE OR REPLACE BRANCH {branch}"
            )
    audited = {
        table.name: audit_on_branch(spark, spec, table, interval, branch)
        for table in spec.clean_tables
        if table.name in feeds
    }
    return report_on(audited, spec, interval, branch, settings)


def message_of(error: AuditError | SourceError) -> str:
    """What on-call reads."""
    return f"{type(error).__name__}: {error}"
