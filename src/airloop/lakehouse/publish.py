"""Publishing: what the branch of an interval holds, having passed its audit, becomes part of `main`.

Belongs here: the last step of write-audit-publish, done without Spark. Does not belong here: deciding
whether a branch is good (`spark_jobs.audit`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, GreaterThanOrEqual, LessThan
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from airloop.errors import PublishError
from airloop.intervals import Interval, make_interval, parse_instant
from airloop.jobs import run_job
from airloop.lakehouse.catalog import load_table, open_catalog
from airloop.references import Published, TableSnapshot
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase

CLEAN = "clean"


def publish(spec: UseCase, branch: str, interval: Interval, settings: Settings) -> Published:
    """Make what `branch` of the clean tables holds for `interval` part of their `main`.

    Where `main` has not moved since the branch was made, it moves to the branch's snapshot. Where another run
    published meanwhile (a backfill beside the daily run), the branch's audited rows of the interval replace
    those of `main` in one commit. A table whose `main` has the branch's snapshot already stays as it is, so
    that a killed run can be repeated. Raises `PublishError`, before any table moves, for a missing branch.
    """
    catalog = open_catalog(settings)
    tables = [load_table(catalog, f"{CLEAN}.{table.name}") for table in spec.clean_tables]
    heads = [_head(table, branch) for table in tables]
    published = []
    for declared, table, head in zip(spec.clean_tables, tables, heads, strict=True):
        main = table.snapshot_by_name(MAIN_BRANCH)
        live = head
        is_there = main is not None and _descends(table, main, head)
        if main is None or (not is_there and _descends(table, head, main)):
            table.manage_snapshots().set_current_snapshot(snapshot_id=head.snapshot_id).commit()
        elif not is_there:
            live = _replace_interval(table, head, declared.event_time, interval)
        published.append(
            TableSnapshot(table=".".join(table.name()), snapshot_id=live.snapshot_id, rows=_added(head))
        )
    return Published(snapshots=tuple(published))


def _descends(table: Table, later: Snapshot, earlier: Snapshot) -> bool:
    """Whether `later` is `earlier` or was made from it."""
    return earlier.snapshot_id in {s.snapshot_id for s in ancestors_of(later, table.metadata)}


def _replace_interval(table: Table, head: Snapshot, event_time: str | None, interval: Interval) -> Snapshot:
    """Replace the interval's rows of `main` (all rows, without `event_time`) by those at `head`."""
    rows_of_interval: BooleanExpression = AlwaysTrue()
    if event_time is not None:
        rows_of_interval = And(
            GreaterThanOrEqual(term=event_time, value=interval.start.isoformat()),
            LessThan(term=event_time, value=interval.end.isoformat()),
        )
    rows = table.scan(row_filter=rows_of_interval, snapshot_id=head.snapshot_id).to_arrow()
    table.overwrite(rows, overwrite_filter=rows_of_interval)
    live = table.snapshot_by_name(MAIN_BRANCH)
    assert live is not None  # it was just written
    return live


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
    summary = snapshot.summary
    return int(summary.additional_properties.get("added-records", 0)) if summary is not None else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--branch", required=True, help="the branch that passed its audit")
    parser.add_argument("--start", required=True, help="first day of the interval, ISO 8601, UTC")
    parser.add_argument("--end", required=True, help="day after the last one, ISO 8601, UTC")

    def work(arguments: argparse.Namespace, settings: Settings) -> Published:
        interval = make_interval(parse_instant(arguments.start), parse_instant(arguments.end))
        return publish(use_case(arguments.use_case), arguments.branch, interval, settings)

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
