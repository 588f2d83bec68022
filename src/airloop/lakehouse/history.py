"""What was published to a table: by which run, with which code, over which interval, after which audit.

    python -m airloop.lakehouse.history --table clean.flights [--limit 20]

Belongs here: reading a table's past from its snapshots' properties. Does not belong here: writing them
(`publish`), or going back (`rollback`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from airloop.errors import EXIT_PERMANENT, AirloopError
from airloop.intervals import Interval
from airloop.lakehouse.catalog import load_table, open_catalog
from airloop.lakehouse.properties import (
    AUDIT,
    BASE,
    CHANGED_DAYS,
    COMMIT,
    INTERVAL,
    PUBLICATION,
    PUBLISHED_FROM,
    RESTORED_FROM,
    ROLLED_BACK,
    RUN_ID,
    parse_interval,
    properties_of,
)
from airloop.settings import load_settings

UNDONE_TAG = "rolled_back_"
"""Start of the tags under which a rollback keeps what it took from `main`."""


class Publication(NamedTuple):
    """One change of a table's published rows."""

    table: str
    snapshot_id: int
    before: int | None
    """What `main` was before; None where that is not known any more."""
    at: datetime
    run_id: str
    interval: Interval | None
    commit: str
    audit: str
    """JSON of the audit's outcome; empty for tables without one."""
    publication: str
    """Equal on the tables that were published together; empty for tables that are published alone."""
    restored_from: int | None
    """For a rolled back interval, the snapshot whose rows came back."""
    undoes: str
    """For a rolled back interval, the run that was undone."""
    changed_days: frozenset[str]
    """Days (ISO 8601) that had been published before with other rows."""


def publications(table: Table, head: Snapshot | None = None) -> list[Publication]:
    """What was published to `table` up to `head` (by default, `main`), newest first.

    Changes that no run signed, such as a compaction, are left out: they change no rows.
    """
    line = list(ancestors_of(head or table.snapshot_by_name(MAIN_BRANCH), table.metadata))
    by_id = {snapshot.snapshot_id: snapshot for snapshot in line}
    under_seals = {properties_of(snapshot).get(PUBLISHED_FROM) for snapshot in line}
    found: dict[str, list[Snapshot]] = {}
    for snapshot in line:
        if RUN_ID in properties_of(snapshot) and str(snapshot.snapshot_id) not in under_seals:
            found.setdefault(_together(snapshot), []).append(snapshot)
    return [_publication(table, members, by_id) for members in found.values()]


def _together(snapshot: Snapshot) -> str:
    """A text that is the same for the snapshots of one commit: a replacement writes several."""
    said = properties_of(snapshot)
    if PUBLISHED_FROM in said:
        return said[PUBLISHED_FROM]
    if RESTORED_FROM in said:
        return f"{said[RESTORED_FROM]} {said.get(INTERVAL)} {said[RUN_ID]}"
    return str(snapshot.snapshot_id)


def _publication(table: Table, members: Sequence[Snapshot], line: dict[int, Snapshot]) -> Publication:
    """The publication whose snapshots, newest first, are `members`."""
    newest, said = members[0], properties_of(members[0])
    under = line.get(int(said[PUBLISHED_FROM])) if PUBLISHED_FROM in said else newest
    before = members[-1].parent_snapshot_id
    if under is not None and BASE in properties_of(under):
        before = int(properties_of(under)[BASE])
    return Publication(
        table=".".join(table.name()),
        snapshot_id=newest.snapshot_id,
        before=before if before is not None and table.snapshot_by_id(before) is not None else None,
        at=datetime.fromtimestamp(newest.timestamp_ms / 1000, UTC),
        run_id=said[RUN_ID],
        interval=parse_interval(said[INTERVAL]) if INTERVAL in said else None,
        commit=said.get(COMMIT, ""),
        audit=said.get(AUDIT, ""),
        publication=said.get(PUBLICATION, ""),
        restored_from=int(said[RESTORED_FROM]) if RESTORED_FROM in said else None,
        undoes=said.get(ROLLED_BACK, ""),
        changed_days=frozenset(json.loads(said.get(CHANGED_DAYS, "[]"))),
    )


def undone(table: Table) -> list[tuple[str, Snapshot]]:
    """The tags under which rollbacks keep what they took from `main`, newest snapshot first."""
    kept = []
    for name, ref in table.refs().items():
        if name.startswith(UNDONE_TAG) and (head := table.snapshot_by_id(ref.snapshot_id)) is not None:
            kept.append((name, head))
    return sorted(kept, key=lambda item: item[1].timestamp_ms, reverse=True)


def shown(table: Table, limit: int) -> str:
    """The last `limit` publications as lines of text, those that a rollback undid among them."""
    live = publications(table)
    states = {item.snapshot_id: "live" for item in live}
    everything = {item.snapshot_id: item for item in live}
    for tag, head in undone(table):
        for item in publications(table, head):
            states.setdefault(item.snapshot_id, tag)
            everything.setdefault(item.snapshot_id, item)
    rows = [("published (UTC)", "interval", "run", "commit", "audit", "snapshot", "state")]
    for item in sorted(everything.values(), key=lambda item: item.at, reverse=True)[:limit]:
        span = f"{item.interval.start:%Y-%m-%d} to {item.interval.end:%Y-%m-%d}" if item.interval else "-"
        state = states[item.snapshot_id] + (f", undoes {item.undoes}" if item.undoes else "")
        rows.append(
            (
                f"{item.at:%Y-%m-%d %H:%M:%S}",
                span,
                item.run_id,
                item.commit[:10] + ("-dirty" if item.commit.endswith("-dirty") else ""),
                _audit_words(item.audit),
                str(item.snapshot_id),
                state,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _audit_words(audit: str) -> str:
    if not audit:
        return "-"
    outcome = json.loads(audit)
    return f"passed {outcome['expectations']}" if outcome.get("passed") else "none"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="What was published to a table, by whom, after which audit.")
    parser.add_argument("--table", required=True, help="namespace.table, such as clean.flights")
    parser.add_argument("--limit", type=int, default=20, help="how many publications, newest first")
    arguments = parser.parse_args(argv)
    try:
        print(shown(load_table(open_catalog(load_settings()), arguments.table), arguments.limit))
    except AirloopError as error:
        print(error, file=sys.stderr)
        return EXIT_PERMANENT
    return 0


if __name__ == "__main__":
    sys.exit(main())
