"""Predictions land in the table: every record that the spool has, exactly once.

    python -m airloop.prediction_log.land

Belongs here: the table, and taking records from the spool's files into it. Does not belong here: writing
those files (`spool`).

The table knows how far each writer has got: the commit that adds rows says so in a property of the table.
So whatever was killed, and whenever: what was taken is not taken again, and a file is removed only when all
of it was. (The rows themselves would not tell: an erasure may have removed the last ones.)
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
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
LANDED: Final = "airloop.predictions.landed"
"""Property of the table: JSON, by writer the last sequence that was taken. Only writers that have files in
the spool are kept; one without has nothing that could be taken twice."""


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
        known = dict.fromkeys((segment.writer for segment, _ in found), 0)
        known |= {k: v for k, v in json.loads(table.properties.get(LANDED, "{}")).items() if k in known}
        rows = damaged = 0
        batch: list[dict[str, Any]] = []
        for segment, finished in found:
            for row in _new_rows(segment, known):
                if row is None:
                    damaged += finished
                    continue
                batch.append(row)
                if len(batch) >= ROWS_AT_ONCE:
                    rows += _append(table, batch, known)
                    batch = []
        rows += _append(table, batch, known)
        done = [segment for segment, finished in found if finished]
        for segment in done:
            segment.path.unlink()
    if damaged:
        log.error("%d lines of the spool could not be read and are not in %s", damaged, TABLE)
    log.info("%d predictions landed in %s, %d files of the spool done", rows, TABLE, len(done))
    return LandedPredictions(table=TABLE, rows=rows, files=len(done), damaged_lines=damaged)


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


def _append(table: Table, rows: Sequence[dict[str, Any]], landed: Mapping[str, int]) -> int:
    if not rows:
        return 0
    arrow = pa.Table.from_pylist(list(rows), schema=ARROW_SCHEMA)

    def attempt() -> None:
        with table.transaction() as transaction:
            transaction.append(arrow)
            transaction.set_properties({LANDED: json.dumps(landed, sort_keys=True)})

    despite_conflicts(table, attempt)
    return len(arrow)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(_: argparse.Namespace, settings: Settings) -> LandedPredictions:
        return land(settings)

    return run_job(argparse.ArgumentParser(description="Land predictions in the table."), work, argv)


if __name__ == "__main__":
    sys.exit(main())
