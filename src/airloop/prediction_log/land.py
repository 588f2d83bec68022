"""Predictions and outcomes land in their tables: every record that a spool has, exactly once.

    python -m airloop.prediction_log.land

Belongs here: the tables, and taking records from the spools' files into them. Does not belong here: writing
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
from typing import Any

import pyarrow as pa
from pyiceberg.table import Table

from airloop.connections import PREDICTION_LOG, find_connection
from airloop.jobs import run_job
from airloop.lakehouse.catalog import open_catalog
from airloop.lakehouse.replace import despite_conflicts
from airloop.prediction_log.land_kafka import land_from_kafka
from airloop.prediction_log.logs import OUTCOMES, PREDICTIONS, Log
from airloop.prediction_log.spool import Segment, landing_alone, segments_of
from airloop.prediction_log.tables import LANDED, ROWS_AT_ONCE, table_of
from airloop.references import LandedPredictions
from airloop.settings import Settings

log = logging.getLogger(__name__)


def land(settings: Settings, kept: Log = PREDICTIONS, *, accept_loss: bool = False) -> LandedPredictions:
    """Take what gateways wrote into the log's table, from Kafka if it is configured, else from their spool.

    Safe to repeat and to kill, one at a time. `accept_loss` and what is raised: see `land_from_kafka`.
    """
    connection = find_connection(PREDICTION_LOG)
    if connection is not None:
        return land_from_kafka(settings, kept, connection, accept_loss=accept_loss)
    return land_spool(settings, kept)


def land_spool(settings: Settings, kept: Log) -> LandedPredictions:
    """Take what the log's spool has into its table; safe to repeat and to kill, one at a time."""
    folder = kept.folder(settings)
    with landing_alone(folder):
        table = table_of(open_catalog(settings), kept)
        # Before their lines are read: a file that is finished by then has all of its lines.
        found = [(segment, segment.finished) for segment in segments_of(folder)]
        known = dict.fromkeys((segment.writer for segment, _ in found), 0)
        known |= {k: v for k, v in json.loads(table.properties.get(LANDED, "{}")).items() if k in known}
        rows = damaged = 0
        batch: list[dict[str, Any]] = []
        for segment, finished in found:
            for row in _new_rows(segment, kept, known):
                if row is None:
                    damaged += finished
                    continue
                batch.append(row)
                if len(batch) >= ROWS_AT_ONCE:
                    rows += _append(table, kept, batch, known)
                    batch = []
        rows += _append(table, kept, batch, known)
        done = [segment for segment, finished in found if finished]
        for segment in done:
            segment.path.unlink()
    if damaged:
        log.error("%d lines of the spool could not be read and are not in %s", damaged, kept.table)
    log.info("%d records landed in %s, %d files of the spool done", rows, kept.table, len(done))
    return LandedPredictions(table=kept.table, rows=rows, files=len(done), damaged_lines=damaged)


def _new_rows(segment: Segment, kept: Log, known: dict[str, int]) -> Iterator[dict[str, Any] | None]:
    """The segment's rows that the table has not, and None for each line that cannot be read.

    A writer counts on in order, so its last sequence says it all; a line that was written twice (a disk that
    was full for a moment) is taken once.
    """
    for line in segment.lines():
        row = kept.row_of(line)
        if row is None:
            yield None
        elif row["sequence"] > known[segment.writer]:
            known[segment.writer] = row["sequence"]
            yield row


def _append(table: Table, kept: Log, rows: Sequence[dict[str, Any]], landed: Mapping[str, int]) -> int:
    if not rows:
        return 0
    arrow = pa.Table.from_pylist(list(rows), schema=kept.schema)

    def attempt() -> None:
        with table.transaction() as transaction:
            transaction.append(arrow)
            transaction.set_properties({LANDED: json.dumps(landed, sort_keys=True)})

    despite_conflicts(table, attempt)
    return len(arrow)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> LandedPredictions:
        # A prediction is written before its outcome can be told: in this order none lands alone.
        outcomes = land(settings, OUTCOMES, accept_loss=arguments.accept_loss)
        landed = land(settings, accept_loss=arguments.accept_loss)
        return landed.model_copy(
            update={
                "outcomes": outcomes.rows,
                "files": landed.files + outcomes.files,
                "damaged_lines": landed.damaged_lines + outcomes.damaged_lines,
            }
        )

    parser = argparse.ArgumentParser(description="Land predictions and outcomes.")
    parser.add_argument(
        "--accept-loss", action="store_true", help="go on with what Kafka has where messages are gone"
    )
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
