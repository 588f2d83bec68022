"""Publishing: fast-forward `main` of each clean table to the branch that passed its audit.

Belongs here: the last step of write-audit-publish, done on metadata alone. Does not belong here: deciding
whether a branch is good (`spark_jobs.audit`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from airloop.errors import PublishError
from airloop.jobs import run_job
from airloop.lakehouse.catalog import load_table, open_catalog
from airloop.references import Published, TableSnapshot
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase

CLEAN = "clean"


def publish(spec: UseCase, branch: str, settings: Settings) -> Published:
    """Make the clean tables' `branch` their `main`; all are checked before the first moves.

    A table whose `main` has the branch's snapshot already stays as it is, so that a killed run can be
    repeated. Raises `PublishError` when a branch is missing, or does not start from the present `main`.
    """
    catalog = open_catalog(settings)
    tables = [load_table(catalog, f"{CLEAN}.{table.name}") for table in spec.clean_tables]
    heads = [_head(table, branch) for table in tables]
    pending = [_is_ahead(table, head) for table, head in zip(tables, heads, strict=True)]
    for table, head, ahead in zip(tables, heads, pending, strict=True):
        if ahead:
            table.manage_snapshots().set_current_snapshot(snapshot_id=head.snapshot_id).commit()
    return Published(
        snapshots=tuple(
            TableSnapshot(table=".".join(table.name()), snapshot_id=head.snapshot_id, rows=_added(head))
            for table, head in zip(tables, heads, strict=True)
        )
    )


def _head(table: Table, branch: str) -> Snapshot:
    head = table.snapshot_by_name(branch)
    if head is None:
        raise PublishError(
            expected=f"a branch {branch} of {'.'.join(table.name())}",
            found=f"only {', '.join(sorted(table.refs())) or 'nothing'}",
            next_step="run the clean and audit jobs for this interval first",
        )
    return head


def _is_ahead(table: Table, head: Snapshot) -> bool:
    """Whether `main` has yet to move to `head`; raises `PublishError` when it cannot."""
    main = table.snapshot_by_name(MAIN_BRANCH)
    if main is None:
        return True
    if head.snapshot_id in {s.snapshot_id for s in ancestors_of(main, table.metadata)}:
        return False
    if main.snapshot_id in {s.snapshot_id for s in ancestors_of(head, table.metadata)}:
        return True
    raise PublishError(
        expected=f"the branch of {'.'.join(table.name())} to start from its present main",
        found=f"main moved to snapshot {main.snapshot_id} after the branch was made",
        next_step="run the interval again: clean makes a new branch from the present main",
    )


def _added(snapshot: Snapshot) -> int:
    summary = snapshot.summary
    return int(summary.additional_properties.get("added-records", 0)) if summary is not None else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--branch", required=True, help="the branch that passed its audit")

    def work(arguments: argparse.Namespace, settings: Settings) -> Published:
        return publish(use_case(arguments.use_case), arguments.branch, settings)

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
