"""Job: data that were not published in time, whatever the reason.

    python -m airloop.monitoring.late_data --use-case NAME --at 2026-11-21T06:40

Belongs here: holding the rows that the tables have against the spec's deadlines. Does not belong here: how
fresh the rows of a delivered day are (the audit), or who hears of it (the watchdog).

It reads no more than whether a day has a row: what was published late, by a backfill or by hand, is there.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from airloop.intervals import ONE_DAY, Interval, day_interval, parse_instant
from airloop.jobs import run_job
from airloop.lakehouse.catalog import open_catalog
from airloop.lakehouse.publish import CLEAN
from airloop.monitoring.tables import existing, starting_in
from airloop.prediction_log.logs import OUTCOMES, PREDICTIONS
from airloop.prediction_log.spool import segments_of
from airloop.references import LateData
from airloop.settings import Settings
from airloop.use_cases.catalogue import all_use_cases, use_case
from airloop.use_cases.spec import UseCase
from airloop.wording import listed

log = logging.getLogger(__name__)

FEATURES: Final = "features"
EVENT_TIMESTAMP: Final = "event_timestamp"
DAYS_BACK: Final = 8
"""How far back a day without rows is late; the daily run of a week ago may have failed."""


def late_data(settings: Settings, spec: UseCase, at: datetime) -> LateData:
    """What is late at the moment `at`.

    A table that has never had a row is not late: the features DAG was not run yet.
    """
    ended = at - spec.schedules.features_within
    due = day_interval(ended.date()).start - ONE_DAY
    found = dict(_late_tables(open_catalog(settings), spec, due))
    # The gateways' spools are everybody's: one use case says so for all.
    if spec.name == all_use_cases()[0].name:
        found |= dict(_late_logs(settings, spec, at))
    for name, said in found.items():
        log.warning("%s: %s", name, said)
    return LateData(use_case=spec.name, at=at.isoformat(), late=found)


def _late_tables(catalog: Catalog, spec: UseCase, due: datetime) -> Iterator[tuple[str, str]]:
    """The tables without a row of the day `due`, and what they have."""
    timed = [(f"{CLEAN}.{one.name}", one.event_time) for one in spec.own_clean_tables if one.event_time]
    timed += [(f"{FEATURES}.{one.name}", EVENT_TIMESTAMP) for one in spec.own_feature_tables]
    for name, column in timed:
        table = existing(catalog, name)
        if table is None or table.current_snapshot() is None:
            continue
        days = [due - number * ONE_DAY for number in range(DAYS_BACK)]
        there = [_has_rows(table, column, day) for day in days]
        # What a table begins with is where nothing lies before; a later day that is missing stays late.
        first = max((number for number, has in enumerate(there) if has), default=DAYS_BACK)
        missing = [day for day, has in zip(days[:first], there[:first], strict=True) if not has]
        if missing:
            until = missing[-1] + ONE_DAY + spec.schedules.features_within
            which = listed([f"{day:%Y-%m-%d}" for day in reversed(missing)])
            yield name, f"no row of {which}; the first was due {until:%Y-%m-%d %H:%M} UTC"


def _has_rows(table: Table, column: str, day: datetime) -> bool:
    where = starting_in(column, Interval(day, day + ONE_DAY))
    rows: int = table.scan(row_filter=where, selected_fields=(column,), limit=1).to_arrow().num_rows
    return rows > 0


def _late_logs(settings: Settings, spec: UseCase, at: datetime) -> Iterator[tuple[str, str]]:
    """The logs whose spool has files that are full, and that nobody took in time."""
    since = at - spec.schedules.predictions_within
    for kept in (PREDICTIONS, OUTCOMES):
        full = [segment.path for segment in segments_of(kept.folder(settings)) if segment.finished]
        waiting = sorted(path.stat().st_mtime for path in full)
        if waiting and (oldest := datetime.fromtimestamp(waiting[0], UTC)) < since:
            yield (
                kept.table,
                f"{len(waiting)} files of the gateways' spool have not landed, the oldest of "
                f"{oldest:%Y-%m-%d %H:%M} UTC",
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> LateData:
        return late_data(settings, use_case(arguments.use_case), parse_instant(arguments.at))

    parser = argparse.ArgumentParser(description="What was not published in time.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--at", required=True, help="the moment to look at, ISO 8601, UTC")
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
