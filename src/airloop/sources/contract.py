"""What a batch source is: an adapter that yields an interval's records, and the contract they must keep.

Belongs here: the protocol and its check. Does not belong here: any particular source, or what is done with
the records (`spark_jobs.ingest`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import pyarrow as pa

from airloop.errors import SourceError
from airloop.intervals import Interval
from airloop.settings import Settings
from airloop.use_cases.spec import ColumnType, Feed

SOURCE_OFFSET: Final = "_source_offset"
"""Column that an adapter adds: where the record stands at the source (a line, an offset), as text."""

SOURCE_KEY: Final = "_source_key"
"""Column that ingestion adds: the feed's key columns as one text."""

ARROW_TYPES: Final[Mapping[ColumnType, pa.DataType]] = {
    "string": pa.string(),
    "long": pa.int64(),
    "double": pa.float64(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "local_timestamp": pa.timestamp("us"),
}


class SourceAdapter(Protocol):
    """Reads one source. Built once per job with the deployment's settings and the spec's options."""

    def __init__(self, settings: Settings, options: Mapping[str, str]) -> None: ...

    def read(self, feed: Feed, interval: Interval) -> pa.Table:
        """The records of `feed` whose event time lies in `interval`; all of them for reference data.

        Columns: the feed's, of `ARROW_TYPES`, and `SOURCE_OFFSET`. The same interval yields the same
        records. Raises `SourceError` when the source cannot be read whole.
        """
        ...


def check_contract(feed: Feed, records: pa.Table) -> pa.Table:
    """`records` with the feed's columns in order and `SOURCE_OFFSET`.

    Raises `SourceError` naming every column that is missing, unexpected, of another type, or null where
    the feed requires a value (with the offset of the first such record).
    """
    expected = {column.name: ARROW_TYPES[column.type] for column in feed.columns}
    expected[SOURCE_OFFSET] = pa.string()
    found = dict(zip(records.schema.names, records.schema.types, strict=True))
    problems = [f"no column {name!r}" for name in expected if name not in found]
    problems += [f"an unexpected column {name!r}" for name in found if name not in expected]
    problems += [
        f"column {name!r} of type {found[name]} instead of {type_}"
        for name, type_ in expected.items()
        if name in found and found[name] != type_
    ]
    for column in feed.columns:
        if column.required and column.name in found and records[column.name].null_count:
            nulls = records[column.name].is_null()
            first = records.filter(nulls)[SOURCE_OFFSET][0] if SOURCE_OFFSET in found else "unknown"
            problems.append(
                f"{records[column.name].null_count} nulls in {column.name!r} (first at offset {first})"
            )
    if problems:
        raise SourceError(
            expected=f"feed {feed.name!r} to keep its contract",
            found="; ".join(problems),
            next_step="mend the source, or change the feed's columns in the use case's spec if the change "
            "is meant; nothing was ingested",
        )
    return records.select(list(expected))
