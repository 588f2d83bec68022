"""Rows of an interval replaced by those of another snapshot of the same table, in one commit, without Spark.

Belongs here: the replacement that publishing beside a concurrent run and rolling back a day share, and how
both stand commits that come in between. Does not belong here: which rows, or why.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, GreaterThanOrEqual, LessThan
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot

from airloop.errors import PublishError
from airloop.intervals import Interval

T = TypeVar("T")
ATTEMPTS: Final = 30
LONGEST_WAIT_SECONDS: Final = 3.0
ROWS_IN_MEMORY: Final = 500_000
OVERTAKEN: Final = "older than last sequence number"
"""How PyIceberg refuses a snapshot for one branch when another branch of the table got one meanwhile."""


def despite_conflicts(table: Table, attempt: Callable[[], T]) -> T:
    """What `attempt` returns, tried again on the refreshed `table` while other writers commit in between.

    Raises `PublishError` when it never gets its turn; nothing is written then.
    """
    for number in range(ATTEMPTS):
        try:
            return attempt()
        except (CommitFailedException, ValidationException, ValueError) as error:
            if isinstance(error, ValueError) and OVERTAKEN not in str(error):
                raise
            conflict: Exception = error
        time.sleep(random.uniform(0.1, 1) * min(LONGEST_WAIT_SECONDS, 0.1 * 2**number))  # noqa: S311 - spreads retries, is no secret
        table.refresh()
    raise PublishError(
        expected=f"a turn to commit to {'.'.join(table.name())} within {ATTEMPTS} attempts",
        found=f"another writer each time: {conflict}",
        next_step="run it again when fewer runs write to the table",
    )


def replace_interval(
    table: Table,
    rows_at: Snapshot,
    event_time: str | None,
    interval: Interval,
    properties: Mapping[str, str],
) -> Snapshot:
    """Make the rows of `interval` (all rows, without `event_time`) on `main` those that `rows_at` has.

    One commit, however many pieces the rows come in; memory does not grow with them. Rows of an older schema
    come back in the present one: renamed and widened, with nulls in columns that are newer. Returns what
    `main` is then; raises PyIceberg's conflict errors when another writer got there first.
    """
    changed = dict(properties)
    with table.transaction() as transaction:
        transaction.delete(_within(event_time, interval), snapshot_properties=changed)
        for rows in _pieces(table, rows_at, event_time, interval):
            transaction.append(rows, snapshot_properties=changed)
    live = table.snapshot_by_name(MAIN_BRANCH)
    assert live is not None  # it was just written
    return live


def _within(event_time: str | None, interval: Interval) -> BooleanExpression:
    if event_time is None:
        return AlwaysTrue()
    return And(
        GreaterThanOrEqual(term=event_time, value=interval.start.isoformat()),
        LessThan(term=event_time, value=interval.end.isoformat()),
    )


def _pieces(
    table: Table, rows_at: Snapshot, event_time: str | None, interval: Interval
) -> Iterator[pa.Table]:
    """The interval's rows at `rows_at` in the present schema; at least one piece, which may be empty."""
    now = table.schema()
    then = table.schemas()[rows_at.schema_id] if rows_at.schema_id is not None else now
    if event_time is not None:
        event_time = then.find_column_name(now.find_field(event_time).field_id)
    scan = table.scan(row_filter=_within(event_time, interval), snapshot_id=rows_at.snapshot_id)
    held: list[pa.RecordBatch] = []
    count, pieces = 0, 0
    for batch in scan.to_arrow_batch_reader():
        held.append(_as_present(batch, then, now))
        count += batch.num_rows
        if count >= ROWS_IN_MEMORY:
            yield pa.Table.from_batches(held)
            held, count, pieces = [], 0, pieces + 1
    if held or not pieces:
        yield pa.Table.from_batches(held, schema=schema_to_pyarrow(now, include_field_ids=False))


def _as_present(batch: pa.RecordBatch, then: Schema, now: Schema) -> pa.RecordBatch:
    """`batch`, read in the schema `then`, in the schema `now`; a column is the same by Iceberg's field id."""
    wanted = schema_to_pyarrow(now, include_field_ids=False)
    arrays = []
    for field in now.fields:
        name, type_ = then.find_column_name(field.field_id), wanted.field(field.name).type
        arrays.append(pa.nulls(batch.num_rows, type_) if name is None else batch.column(name).cast(type_))
    return pa.RecordBatch.from_arrays(arrays, schema=wanted)
