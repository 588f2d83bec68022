"""A database as a source: the rows of a PostgreSQL table or query, read in one snapshot, piece by piece.

Belongs here: the statements, and what is made of their rows. Does not belong here: the connection and its
errors (`postgres`), types (`parsing`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field as OptionField
from pydantic import model_validator

from airloop.connections import Connection
from airloop.errors import SourceError, SpecError
from airloop.intervals import Interval
from airloop.settings import Settings
from airloop.sources.column_types import type_column
from airloop.sources.contract import Delivery
from airloop.sources.options import AdapterOptions, options_for
from airloop.sources.parsing import (
    PIECE_ROWS,
    content_hashes,
    deliver,
    event_times,
    require_columns,
    require_types,
    text_hash,
    type_rows,
)
from airloop.sources.postgres import quoted, snapshot
from airloop.use_cases.spec import Feed

_UPDATED: Final = "_updated_at"
_POSITION: Final = "_position_"
_TEXT_OR_BOUND: Final = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | --[^\n]* | /\*.*?\*/ | \$(\w*)\$.*?\$\1\$
    | (?<![:\w]):(?P<bound>start|end)\b""",
    re.VERBOSE | re.DOTALL,
)
"""Literals, quoted names and comments, which are left as they are; and `:start` or `:end` outside them."""


class SqlOptions(AdapterOptions):
    """Options of the `sql` adapter."""

    table: str | None = None
    """A table or view, `name` or `schema.name`; this or `query`."""
    query: str | None = None
    """A SELECT, in which `:start` and `:end` are the interval's bounds."""
    updated_at: str | None = None
    """Column with the time of a row's last change: its source time, and the start of its offset."""
    offset: str = ""
    """Columns, separated by commas, that place a row at the source; a whole number sorts as one."""
    statement_timeout_seconds: float = OptionField(600, gt=0)

    @model_validator(mode="after")
    def _one_relation(self) -> SqlOptions:
        if (self.table is None) == (self.query is None):
            raise ValueError("either a table or a query is needed, not both")
        return self

    @property
    def position(self) -> tuple[str, ...]:
        """The columns of `offset`."""
        return tuple(name for part in self.offset.split(",") if (name := part.strip()))


class Statement(NamedTuple):
    """A SELECT and the values bound to its `$1`, `$2`…"""

    text: str
    values: tuple[datetime, ...] = ()


class SqlSource:
    """Reads a table or a query. A record's offset is its position, time of change and a hash of its content.

    Position and time are there if the options name their columns; the hash makes a changed row another
    record.
    """

    def __init__(
        self, settings: Settings, options: Mapping[str, str], connection: Connection | None = None
    ) -> None:
        if connection is None:
            raise SpecError(
                expected="a connection for the sql adapter",
                found="none",
                next_step="name an Airflow connection of type postgres in the source's field connection",
            )
        self._options, self._connection = options, connection

    def read(self, feed: Feed, interval: Interval) -> Iterator[Delivery]:
        """See `SourceAdapter.read`."""
        options = options_for(SqlOptions, feed, self._options)
        with snapshot(self._connection, options.time_zone, options.statement_timeout_seconds) as rows:
            relation = _relation(options, interval)
            found = rows.schema(f"SELECT * FROM {relation.text}", relation.values)  # noqa: S608 - the spec's names
            statement = _select(feed, options, interval, relation, found)
            for batch in rows.pieces(statement.text, statement.values, PIECE_ROWS):
                yield _delivery(feed, options, interval, batch)


def _relation(options: SqlOptions, interval: Interval) -> Statement:
    """What stands after FROM."""
    if options.table is not None:
        return Statement(".".join(map(quoted, options.table.split("."))) + " AS delivered")
    values: list[datetime] = []

    def bound(match: re.Match[str]) -> str:
        name = match["bound"]
        if name is None:
            return match[0]
        value = interval.start if name == "start" else interval.end
        if value not in values:
            values.append(value)
        return f"${values.index(value) + 1}"

    query = _TEXT_OR_BOUND.sub(bound, options.query or "").strip().removesuffix(";")
    # The line end closes a comment at the query's end.
    return Statement(f"({query}\n) AS delivered", tuple(values))


def _select(
    feed: Feed, options: SqlOptions, interval: Interval, relation: Statement, found: pa.Schema
) -> Statement:
    """The rows of `relation` that lie in `interval`; those without an event time too, to be set aside.

    Raises `SourceError` for columns that are missing or of a type that the feed does not allow.
    """
    where = f"the {'table ' + options.table if options.table else 'query'} of feed {feed.name!r}"
    require_columns(feed, options, found.names, where=where)
    require_types(feed, options, found, where=where)
    own = [*options.position, *([options.updated_at] if options.updated_at else [])]
    missing = [name for name in own if name not in found.names]
    if missing:
        raise SourceError(
            expected=f"columns {', '.join(missing)} in {where}, for its offset and updated_at",
            found=f"only {', '.join(found.names)}",
            next_step="correct the source's options in the use case's spec",
        )
    if options.updated_at and not pa.types.is_timestamp(found.field(options.updated_at).type):
        raise SourceError(
            expected=f"{options.updated_at} of {where} to be a timestamp",
            found=str(found.field(options.updated_at).type),
            next_step="name another column in the option updated_at, or leave it out",
        )
    columns = []
    for column in feed.columns:
        name = quoted(options.at_source(column.name))
        text = f"{name}::text" if column.type == "string" else name
        columns.append(f"{text} AS {quoted(column.name)}")
    if options.updated_at:
        columns.append(f"{quoted(options.updated_at)} AS {quoted(_UPDATED)}")
    columns += [
        f"{quoted(name)} AS {quoted(f'{_POSITION}{place}')}" for place, name in enumerate(options.position)
    ]
    text = f"SELECT {', '.join(columns)} FROM {relation.text}"  # noqa: S608 - the spec's names
    values = [*relation.values]
    if feed.event_time is not None:
        time, first = quoted(options.at_source(feed.event_time)), len(values) + 1
        text += f" WHERE ({time} >= ${first} AND {time} < ${first + 1}) OR {time} IS NULL"
        values += interval
    return Statement(text, tuple(values))


def _delivery(feed: Feed, options: SqlOptions, interval: Interval, batch: pa.Table) -> Delivery:
    rows = type_rows(feed, {column.name: batch[column.name] for column in feed.columns}, options)
    times = event_times(feed, rows)
    parts = [_sortable(batch[f"{_POSITION}{place}"]) for place in range(len(options.position))]
    if options.updated_at:
        updated, _ = type_column(batch[_UPDATED], "timestamp", options)
        parts.append(pc.fill_null(pc.cast(updated, pa.string()), ""))
        times = pc.coalesce(updated, times)

    def payload(row: int) -> str:
        return json.dumps(batch.slice(row, 1).to_pylist()[0], default=str)

    hashes = content_hashes(feed, rows)
    if rows.problems:  # what could not be typed is in no hash of typed values
        texts = hashes.to_pylist()
        for row in rows.problems:
            texts[row] = text_hash(payload(row))
        hashes = pa.array(texts, pa.string())
    offsets = pc.binary_join_element_wise(*parts, hashes, "|") if parts else hashes
    return deliver(feed, interval, rows, offsets=_flat(offsets), times=_flat(times), payload=payload)


def _sortable(values: pa.ChunkedArray) -> pa.Array:
    """`values` as text that sorts as they do, where they are whole numbers from 0; no value sorts first."""
    text = pc.cast(values, pa.string())
    if pa.types.is_integer(values.type):
        text = pc.utf8_lpad(text, 20, "0")
    return pc.fill_null(text, "")


def _flat(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
