"""Publishing: what the branch of an interval holds, having passed its audit, becomes part of `main`.

Belongs here: the last step of write-audit-publish, done without Spark. Does not belong here: deciding
whether a branch is good (`spark_jobs.audit`).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from functools import partial

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from airloop.errors import PublishError
from airloop.intervals import Interval, make_interval, parse_instant
from airloop.jobs import run_job
from airloop.lakehouse.catalog import load_table, open_catalog
from airloop.lakehouse.properties import (
    AUDIT,
    BASE,
    CHANGED_DAYS,
    PUBLICATION,
    PUBLISHED_FROM,
    SOURCE_OFFSETS,
    json_text,
    properties_of,
)
from airloop.lakehouse.provenance import signature
from airloop.lakehouse.replace import despite_conflicts, replace_interval
from airloop.references import AuditReport, Published, TableSnapshot
from airloop.settings import Settings
from airloop.training.arguments import parse_reference
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import CleanTable, UseCase

CLEAN = "clean"


def publish(
    spec: UseCase, branch: str, interval: Interval, settings: Settings, audit: AuditReport | None = None
) -> Published:
    """Make what `branch` of the clean tables holds for `interval` part of their `main`.

    Where `main` has not moved since the branch was made, it moves to the branch. Where it has (a backfill
    beside the daily run, a compaction, a rollback), the branch's audited rows of the interval replace those
    of `main` in one commit. Either way the snapshot that `main` gets says in its properties which run
    published which interval, from which source offsets, with which code, and what the `audit` found. A table
    that has the branch's rows already stays as it is, so that a killed run can be repeated. Raises
    `PublishError`, before any table moves, for a missing branch and for the audit of another one.
    """
    if audit is not None and audit.branch != branch:
        raise PublishError(
            expected=f"the audit of branch {branch}",
            found=f"one of branch {audit.branch}",
            next_step="audit the branch that is to be published",
        )
    catalog = open_catalog(settings)
    tables = [load_table(catalog, f"{CLEAN}.{table.name}") for table in spec.clean_tables]
    audited = [_audited(table, _head(table, branch)) for table in tables]
    together = "".join(str(snapshot.snapshot_id) for snapshot in audited)
    said = {
        **signature(spec.name, interval),
        PUBLICATION: hashlib.sha256(together.encode()).hexdigest()[:16],
        AUDIT: json_text(_outcome(audit)),
    }
    changed = audit.changed_days if audit is not None else {}
    published = []
    for declared, table, rows_at in zip(spec.clean_tables, tables, audited, strict=True):
        about = {
            **said,
            PUBLISHED_FROM: str(rows_at.snapshot_id),
            SOURCE_OFFSETS: properties_of(rows_at).get(SOURCE_OFFSETS, "{}"),
            CHANGED_DAYS: json_text(changed.get(declared.name, ())),
        }
        live = despite_conflicts(
            table,
            partial(_publish_table, declared, table, branch, rows_at, interval, about),
        )
        published.append(
            TableSnapshot(table=".".join(table.name()), snapshot_id=live.snapshot_id, rows=_added(rows_at))
        )
    days = {day for of_table in changed.values() for day in of_table}
    return Published(snapshots=tuple(published), changed_days=tuple(sorted(days)))


def _publish_table(
    declared: CleanTable,
    table: Table,
    branch: str,
    rows_at: Snapshot,
    interval: Interval,
    about: Mapping[str, str],
) -> Snapshot:
    """Bring the audited rows to `main` of one table, unless they are there; returns what published them."""
    main = table.snapshot_by_name(MAIN_BRANCH)
    if main is not None and (there := _published(table, main, rows_at)) is not None:
        return there
    if main is not None and properties_of(rows_at).get(BASE) != str(main.snapshot_id):
        # Moving `main` to the branch would take back what came meanwhile, or bring back what was rolled back.
        return replace_interval(table, rows_at, declared.event_time, interval, about)
    head = _head(table, branch)
    if head.snapshot_id == rows_at.snapshot_id:
        # Moving a reference writes no snapshot, so the branch first gets one without rows that says it all.
        table.append(table.schema().as_arrow().empty_table(), snapshot_properties=dict(about), branch=branch)
        head = _head(table, branch)
        if table.snapshot_by_name(MAIN_BRANCH) != main:
            raise CommitFailedException(f"main of {'.'.join(table.name())} moved while its branch was sealed")
    table.manage_snapshots().set_current_snapshot(snapshot_id=head.snapshot_id).commit()
    return head


def _published(table: Table, main: Snapshot, rows_at: Snapshot) -> Snapshot | None:
    """The snapshot of `main` by which the rows of `rows_at` were published; None when they were not."""
    for snapshot in ancestors_of(main, table.metadata):
        if properties_of(snapshot).get(PUBLISHED_FROM) == str(rows_at.snapshot_id):
            return snapshot
    return None


def _audited(table: Table, head: Snapshot) -> Snapshot:
    """The snapshot that the audit saw: the branch's head, or what lies under the seal of an earlier try."""
    sealed = properties_of(head).get(PUBLISHED_FROM)
    under = table.snapshot_by_id(int(sealed)) if sealed is not None else None
    return under if under is not None and under.snapshot_id == head.parent_snapshot_id else head


def _outcome(audit: AuditReport | None) -> dict[str, object]:
    """What the property `AUDIT` says; None as `passed` where a person published without an audit."""
    if audit is None:
        return {"passed": None}
    return {"passed": True, "expectations": audit.expectations, "report": audit.report_uri}


def _head(table: Table, branch: str) -> Snapshot:
    head = table.snapshot_by_name(branch)
    if head is None:
        raise PublishError(
            expected=f"a branch {branch} of {'.'.join(table.name())}",
            found=f"only {', '.join(sorted(table.refs())) or 'nothing'}",
            next_step="run the clean and audit jobs for this interval first",
        )
    return head


def _added(snapshot: Snapshot) -> int:
    return int(properties_of(snapshot).get("added-records", 0))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--branch", required=True, help="the branch that passed its audit")
    parser.add_argument("--start", required=True, help="first day of the interval, ISO 8601, UTC")
    parser.add_argument("--end", required=True, help="day after the last one, ISO 8601, UTC")
    parser.add_argument("--audit", help="AuditReport reference of the branch, JSON")

    def work(arguments: argparse.Namespace, settings: Settings) -> Published:
        interval = make_interval(parse_instant(arguments.start), parse_instant(arguments.end))
        audit = parse_reference(AuditReport, arguments.audit, "--audit") if arguments.audit else None
        return publish(use_case(arguments.use_case), arguments.branch, interval, settings, audit)

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
