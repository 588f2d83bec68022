"""Predictions land in the table: every record that the spool has, exactly once.

    python -m airloop.prediction_log.land

Belongs here: the table, and taking records from the spool's files into it. Does not belong here: writing
those files (`spool`).

A record is known by its writer and sequence, which the table has in its rows. So whatever was killed, and
whenever: what the table has is not taken again, and a file is removed only when the table has all of it.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform

from airloop.jobs import run_job
from airloop.lakehouse.catalog import open_catalog
from airloop.lakehouse.replace import despite_conflicts
from airloop.prediction_log.record import ARROW_SCHEMA, TABLE, row_of
from airloop.prediction_log.spool import Segment, landing_alone, segments_of
from airloop.references import LandedPredictions
from airloop.settings import Settings

log = logging.getLogger(__name__)

ROWS_AT_ONCE: Final = 50_000


def predictions_table(catalog: Catalog) -> Table:
    """The table of predictions, by day; made if there is none."""
    catalog.create_namespace_if_not_exists(TABLE.split(".")[0])
    table = catalog.create_table_if_not_exists(TABLE, schema=ARROW_SCHEMA)
    if table.spec().is_unpartitioned():
        with table.update_spec() as update:
            update.add_field("predicted_at", DayTransform(), "predicted_day")
    return table


def land(settings: Settings) -> LandedPredictions:
    """Take what the spool has into the table; safe to repeat and to kill, one at a time."""
    folder = settings.prediction_spool_dir
    with landing_alone(folder):
        table = predictions_table(open_catalog(settings))
        # Before their lines are read: a file that is finished by then has all of its lines.
        found = [(segment, segment.finished) for segment in segments_of(folder)]
        known = _last_sequences(table, {segment.writer for segment, _ in found})
        rows = damaged = 0
        batch: list[dict[str, Any]] = []
        for segment, finished in found:
            for row in _new_rows(segment, known):
                if row is None:
                    damaged += finished
                    continue
                batch.append(row)
                if len(batch) >= ROWS_AT_ONCE:
                    rows += _append(table, batch)
                    batch = []
        rows += _append(table, batch)
        done = [segment for segment, finished in found if finished]
        for segment in done:
            segment.path.unlink()
    if damaged:
        log.error("%d lines of the spool could not be read and are not in %s", damaged, TABLE)
    log.info("%d predictions landed in %s, %d files of the spool done", rows, TABLE, len(done))
    return LandedPredictions(table=TABLE, rows=rows, files=len(done), damaged_lines=damaged)


def _last_sequences(table: Table, writers: Iterable[str]) -> dict[str, int]:
    """The highest sequence that the table has of each of `writers`; 0 for those that it does not know."""
    wanted = sorted(writers)
    if not wanted:
        return {}
    listed = ", ".join(f"'{writer}'" for writer in wanted)
    scan = table.scan(row_filter=f"writer in ({listed})", selected_fields=("writer", "sequence"))
    highest = scan.to_arrow().group_by("writer").aggregate([("sequence", "max")])
    pairs = zip(highest["writer"].to_pylist(), highest["sequence_max"].to_pylist(), strict=True)
    return {**dict.fromkeys(wanted, 0), **dict(pairs)}


def _new_rows(segment: Segment, known: dict[str, int]) -> Iterator[dict[str, Any] | None]:
    """The segment's rows that the table has not, and None for each line that cannot be read.

    A writer counts on in order, so its last sequence says it all; a line that was written twice (a disk that
    was full for a moment) is taken once.
    """
    for line in segment.lines():
        row = row_of(line)
        if row is None:
            yield None
        elif row["sequence"] > known[segment.writer]:
            known[segment.writer] = row["sequence"]
            yield row


def _append(table: Table, rows: Sequence[dict[str, Any]]) -> int:
    if not rows:
        return 0
    arrow = pa.Table.from_pylist(list(rows), schema=ARROW_SCHEMA)
    despite_conflicts(table, lambda: table.append(arrow))
    return len(arrow)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(_: argparse.Namespace, settings: Settings) -> LandedPredictions:
        return land(settings)

    return run_job(argparse.ArgumentParser(description="Land predictions in the table."), work, argv)


if __name__ == "__main__":
    sys.exit(main())
