"""What a batch source is: an adapter that yields an interval's records, and the contract they must keep.

Belongs here: the protocol and its check. Does not belong here: any particular source, or what is done with
the records (`spark_jobs.ingest`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple, Protocol

import pyarrow as pa

from airloop.connections import Connection
from airloop.errors import SourceError
from airloop.intervals import Interval
from airloop.settings import Settings
from airloop.use_cases.spec import ColumnType, Feed

SOURCE: Final = "_source"
"""Column of a raw table: the name of the source or stream that the record came from."""

SOURCE_KEY: Final = "_source_key"
"""Column that ingestion adds: the feed's key columns as one text."""

SOURCE_OFFSET: Final = "_source_offset"
"""Column that an adapter adds: where the record stands at the source (a line, an offset), as text."""

SOURCE_TIME: Final = "_source_time"
"""Column that an adapter adds: when the source says that the record was written. Of several versions of a
record the one with the latest time, then the highest offset, counts."""

ARROW_TYPES: Final[Mapping[ColumnType, pa.DataType]] = {
    "string": pa.string(),
    "long": pa.int64(),
    "integer": pa.int32(),
    "double": pa.float64(),
    "float": pa.float32(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "local_timestamp": pa.timestamp("us"),
}


class Malformed(NamedTuple):
    """A record that cannot be typed; it goes to the quarantine table and stops nothing."""

    offset: str
    time: datetime | None
    reason: str
    payload: str
    """The record as received."""


class Delivery(NamedTuple):
    """A piece of what a source delivers, small enough for memory."""

    records: pa.Table
    malformed: tuple[Malformed, ...] = ()


class SourceAdapter(Protocol):
    """Reads one source; built once per job, with the spec's options and the connection it names."""

    def __init__(
        self, settings: Settings, options: Mapping[str, str], connection: Connection | None
    ) -> None: ...

    def read(self, feed: Feed, interval: Interval) -> Iterator[Delivery]:
        """The records of `feed` whose event time lies in `interval`, piece by piece; all of reference data.

        Columns: the feed's, of `ARROW_TYPES`, `SOURCE_OFFSET` (text) and `SOURCE_TIME` (timestamp, UTC). The
        same state of the source yields the same records. Raises `SourceError` when the source cannot be read
        whole.
        """
        ...


def record_schema(feed: Feed) -> pa.Schema:
    """The schema of `Delivery.records` for `feed`."""
    return pa.schema(
        [
            *(pa.field(column.name, ARROW_TYPES[column.type]) for column in feed.columns),
            pa.field(SOURCE_OFFSET, pa.string()),
            pa.field(SOURCE_TIME, ARROW_TYPES["timestamp"]),
        ]
    )


def check_contract(feed: Feed, records: pa.Table) -> pa.Table:
    """`records` with the columns of `record_schema` in order.

    Raises `SourceError` naming every column that is missing, unexpected, of another type, or null where
    the feed requires a value (with the offset of the first such record).
    """
    expected = record_schema(feed)
    found = dict(zip(records.schema.names, records.schema.types, strict=True))
    problems = [f"no column {name!r}" for name in expected.names if name not in found]
    problems += [f"an unexpected column {name!r}" for name in found if name not in expected.names]
    problems += [
        f"column {field.name!r} of type {found[field.name]} instead of {field.type}"
        for field in expected
        if field.name in found and found[field.name] != field.type
    ]
    required = [column.name for column in feed.columns if column.required]
    for name in (*required, SOURCE_OFFSET, SOURCE_TIME):
        if name in found and records[name].null_count:
            nulls = records.filter(records[name].is_null())
            first = nulls[SOURCE_OFFSET][0] if SOURCE_OFFSET in found else "unknown"
            problems.append(f"{records[name].null_count} nulls in {name!r} (first at offset {first})")
    if problems:
        raise SourceError(
            expected=f"feed {feed.name!r} to keep its contract",
            found="; ".join(problems),
            next_step="mend the source, or change the feed's columns in the use case's spec if the change "
            "is meant; nothing was ingested",
        )
    return records.select(expected.names)
