"""Maintenance: small files compacted, old snapshots expired, unknown files removed; beside writers.

Spark's lineage events (a file for each job) go at the age at which snapshots do.

Belongs here: what keeps tables small and quick, by Iceberg's own procedures, within the use case's retention.
Does not belong here: rows: what a reader of `main`, of a tag or of a kept snapshot sees never changes.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pyspark.sql import SparkSession

from airloop.cost.usage_table import TABLE as USAGE
from airloop.errors import HistoryError
from airloop.intervals import parse_instant
from airloop.jobs import run_job
from airloop.lineage.spark import remove_events_before
from airloop.logs import remove_job_logs_before
from airloop.monitoring.counts import table_name as counts_table
from airloop.monitoring.day_report_files import remove_day_reports_before
from airloop.monitoring.findings import features_table, windows_table
from airloop.monitoring.judge_quality import table_name as quality_table
from airloop.monitoring.score_table import table_name as scores_table
from airloop.monitoring.silences import table_name as silences_table
from airloop.monitoring.skew import table_name as skew_table
from airloop.references import Maintained, MaintainedTable
from airloop.retraining.requests import table_name as decisions_table
from airloop.settings import Settings
from airloop.use_cases.catalogue import all_use_cases, use_case
from airloop.use_cases.spec import Retention, UseCase
from spark_jobs.arguments import job_parser
from spark_jobs.session import open_session
from spark_jobs.tables import CLEAN, FEATURES, LABELS, RAW, SCORING, TRAINING, despite_conflicts

log = logging.getLogger(__name__)

OWN_BRANCHES = ("audit_", "build_")
"""Starts of the names of the branches that jobs write aside on."""
MANY_MANIFESTS = 50
"""From here on a scan spends longer on finding its files than it would on a rewrite of the manifests."""
_SHARED = (f"{RAW}.quarantine", "serving.predictions", "serving.outcomes", USAGE)
SMALL_FILES = 5
"""Files of one partition that are worth being made one."""


def tables_of(spec: UseCase) -> list[str]:
    """The tables of `spec`; those that an earlier use case of the catalogue has too are left to it.

    The quarantine, the logs of the gateways and what tasks used belong to the first one.
    """
    seen: set[str] = set()
    for other in all_use_cases():
        own = [name for name in (*_declared(other), *_SHARED) if name not in seen]
        if other.name == spec.name:
            return own
        seen.update(own)
    return _declared(spec)


def _declared(spec: UseCase) -> list[str]:
    names = [f"{RAW}.{feed.name}" for feed in spec.feeds]
    names += [f"{CLEAN}.{table.name}" for table in spec.own_clean_tables]
    names += [f"{FEATURES}.{table.name}" for table in spec.own_feature_tables]
    names += [f"{layer}.{spec.name}" for layer in (TRAINING, LABELS, SCORING)]
    names.append(f"{SCORING}.{spec.name}_requests")
    names += [counts_table(spec), windows_table(spec), features_table(spec)]
    names += [scores_table(spec), quality_table(spec), silences_table(spec), decisions_table(spec)]
    names.append(skew_table(spec))
    return list(dict.fromkeys(names))


def maintain(
    spark: SparkSession,
    tables: Iterable[str],
    retention: Retention,
    as_of: datetime,
    *,
    dry_run: bool = False,
) -> Maintained:
    """Compact and tidy those of `tables` that are there, by `retention` counted back from `as_of`.

    Tags stay, with what they pin. A dry run only counts. Each step is safe to repeat, and a writer that
    commits meanwhile only makes it start again.
    """
    there = [name for name in tables if spark.catalog.tableExists(name)]
    done = []
    for name in there:
        done.append(maintain_table(spark, name, retention, as_of, dry_run=dry_run))
        log.info("%s", done[-1])
    return Maintained(tables=tuple(done), dry_run=dry_run)


def maintain_table(
    spark: SparkSession, table: str, retention: Retention, as_of: datetime, *, dry_run: bool = False
) -> MaintainedTable:
    """`maintain` for one table."""
    before = _one(spark, f"SELECT count(*) FROM {table}.files")  # noqa: S608 - the catalog's names
    old = as_of - timedelta(days=retention.snapshots_days)
    branches = _old_branches(spark, table, as_of - timedelta(days=retention.branches_days))
    orphaned = as_of - timedelta(hours=retention.orphan_hours)
    if dry_run:
        return MaintainedTable(
            table=table,
            files_before=before,
            files_after=before,
            branches_dropped=branches,
            snapshots_expired=len(_expirable(spark, table, retention, as_of, branches)),
            orphans_removed=len(_remove_orphans(spark, table, orphaned, dry_run=True)),
        )
    for branch in branches:
        statement = f"ALTER TABLE {_full(spark, table)} DROP BRANCH IF EXISTS `{branch}`"
        despite_conflicts(lambda statement=statement: spark.sql(statement))
    _call(
        spark,
        f"rewrite_data_files(table => '{_full(spark, table)}', "
        f"options => map('min-input-files', '{SMALL_FILES}', 'partial-progress.enabled', 'true', "
        "'remove-dangling-deletes', 'true'))",
    )
    if _one(spark, f"SELECT count(*) FROM {table}.manifests") >= MANY_MANIFESTS:  # noqa: S608 - the catalog's names
        _call(spark, f"rewrite_manifests(table => '{_full(spark, table)}')")
    snapshots = _snapshot_ids(spark, table)
    _call(
        spark,
        f"expire_snapshots(table => '{_full(spark, table)}', older_than => {_timestamp(old)}, "
        f"retain_last => {retention.min_snapshots})",
    )
    expired = len(snapshots - _snapshot_ids(spark, table))
    return MaintainedTable(
        table=table,
        files_before=before,
        files_after=_one(spark, f"SELECT count(*) FROM {table}.files"),  # noqa: S608 - the catalog's names
        branches_dropped=branches,
        snapshots_expired=expired,
        orphans_removed=len(_remove_orphans(spark, table, orphaned, dry_run=False)),
    )


def expire_all_but_current(spark: SparkSession, table: str, *, tags: bool = False) -> int:
    """Expire every snapshot of `table` but the one that `main` points to, now, with the files only they have.

    For erasure: afterwards no earlier version can be read. All branches but `main` go. Tags and what they pin
    stay unless `tags` is set: training sets that may be kept are for the caller to decide. Returns how many
    snapshots expired.
    """
    kept = f"r.name <> 'main' AND (r.type = 'BRANCH' OR {str(tags).lower()})"
    for name, kind in spark.sql(f"SELECT r.name, r.type FROM {table}.refs r WHERE {kept}").collect():  # noqa: S608 - the catalog's names
        statement = f"ALTER TABLE {_full(spark, table)} DROP {kind} IF EXISTS `{name}`"
        despite_conflicts(lambda statement=statement: spark.sql(statement))

    def expire() -> int:
        pinned = {row[0] for row in spark.sql(f"SELECT snapshot_id FROM {table}.refs").collect()}  # noqa: S608 - the catalog's names
        ids = sorted(_snapshot_ids(spark, table) - pinned)
        if ids:
            listed = ", ".join(f"{number}L" for number in ids)
            _call(
                spark,
                f"expire_snapshots(table => '{_full(spark, table)}', snapshot_ids => ARRAY({listed}), "
                "retain_last => 1)",
            )
        return len(ids)

    return despite_conflicts(expire)


def _old_branches(spark: SparkSession, table: str, before: datetime) -> tuple[str, ...]:
    """The jobs' own branches whose last snapshot is older than `before`."""
    found = spark.sql(
        f"SELECT r.name FROM {table}.refs r JOIN {table}.snapshots s ON s.snapshot_id = r.snapshot_id "  # noqa: S608 - the catalog's names
        f"WHERE r.type = 'BRANCH' AND s.committed_at < {_timestamp(before)} ORDER BY r.name"
    ).collect()
    return tuple(row[0] for row in found if row[0].startswith(OWN_BRANCHES))


def _expirable(
    spark: SparkSession, table: str, retention: Retention, as_of: datetime, dropped: Collection[str]
) -> set[int]:
    """The snapshots that an expiry would take once the branches `dropped` are gone; Iceberg's own rules.

    A compaction right before it adds a snapshot, and may push out one more.
    """
    # A reference's own age is what Iceberg counts by the clock, whatever it is told of snapshots.
    since = "unix_millis(now()) - max_reference_age_in_ms"
    refs = spark.sql(f"SELECT name, type, snapshot_id, {since} FROM {table}.refs").collect()  # noqa: S608 - the catalog's names
    found = spark.sql(f"SELECT snapshot_id, parent_id, unix_millis(committed_at) FROM {table}.snapshots")  # noqa: S608 - the catalog's names
    snapshots = {row[0]: (row[1], row[2]) for row in found.collect()}
    old = _millis(as_of - timedelta(days=retention.snapshots_days))
    kept, referenced = set[int](), set[int]()
    for name, kind, head, oldest in refs:
        outlived = oldest is not None and head in snapshots and snapshots[head][1] < oldest
        if name in dropped or (outlived and name != "main"):
            continue
        line, ancestor = list[int](), head
        while ancestor in snapshots:
            line.append(ancestor)
            ancestor = snapshots[ancestor][0] if kind == "BRANCH" else None
        referenced.update(line)
        for place, snapshot in enumerate(line):
            if place >= retention.min_snapshots and snapshots[snapshot][1] < old:
                break
            kept.add(snapshot)
    young = {number for number, (_, at) in snapshots.items() if at >= old}
    return set(snapshots) - kept - (young - referenced)


def _remove_orphans(spark: SparkSession, table: str, before: datetime, *, dry_run: bool) -> list[Any]:
    """The files in the table's folder that are older than `before` and that no snapshot knows; removed."""
    return _call(
        spark,
        f"remove_orphan_files(table => '{_full(spark, table)}', older_than => {_timestamp(before)}, "
        f"dry_run => {str(dry_run).lower()})",
    )


def _call(spark: SparkSession, procedure: str) -> list[Any]:
    return despite_conflicts(lambda: spark.sql(f"CALL system.{procedure}").collect())


def _snapshot_ids(spark: SparkSession, table: str) -> set[int]:
    return {row[0] for row in spark.sql(f"SELECT snapshot_id FROM {table}.snapshots").collect()}  # noqa: S608 - the catalog's names


def _one(spark: SparkSession, query: str) -> int:
    return int(spark.sql(query).collect()[0][0])


def _millis(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _timestamp(moment: datetime) -> str:
    return f"TIMESTAMP '{moment.isoformat()}'"


def _full(spark: SparkSession, table: str) -> str:
    return f"{spark.catalog.currentCatalog()}.{table}"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = job_parser(__doc__, interval=False)
    parser.add_argument("--as-of", required=True, help="instant to count ages back from, ISO 8601")
    parser.add_argument("--tables", default="", help="only these, comma-separated")
    parser.add_argument("--dry-run", default="false", choices=["true", "false", "True", "False"])

    def work(arguments: argparse.Namespace, settings: Settings) -> Maintained:
        spec = use_case(arguments.use_case)
        tables = tables_of(spec)
        asked = [name.strip() for name in arguments.tables.split(",") if name.strip()]
        if unknown := sorted(set(asked) - set(tables)):
            raise HistoryError(
                expected=f"tables that {spec.name} keeps: {', '.join(tables)}",
                found=", ".join(unknown),
                next_step="correct --tables",
            )
        as_of, dry_run = parse_instant(arguments.as_of), arguments.dry_run.lower() == "true"
        if not dry_run and not asked:
            # All use cases write there, and the one that looks back furthest decides.
            kept = timedelta(days=max(other.retention.snapshots_days for other in all_use_cases()))
            log.info("%d old files of lineage events removed", remove_events_before(settings, as_of - kept))
            log.info("%d old files of log lines removed", remove_job_logs_before(settings, as_of - kept))
            old = as_of - timedelta(days=spec.retention.snapshots_days)
            log.info("reports of %d days removed", remove_day_reports_before(settings, spec, old))
        spark = open_session(settings, f"{spec.name} maintenance")
        return maintain(spark, asked or tables, spec.retention, as_of, dry_run=dry_run)

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
