"""Messages to records: JSON by the feed's declared types, or the reason why not.

Belongs here: one pure function of Arrow batches for every broker, and carrying it through Spark. Does not
belong here: what a value of each type is (`airloop.sources.parsing`, the same for batch sources), where
messages come from, or judging values that have the right type (`audit`).

Streams are stricter than files in one point: an instant must have an offset, for a message has no zone of its
own. Fields that the feed does not declare are left out, but named, so that they can be counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from airloop.sources.contract import ARROW_TYPES, SOURCE_OFFSET, SOURCE_TIME
from airloop.sources.options import AdapterOptions
from airloop.sources.parsing import payload_text, type_rows
from airloop.sources.text_formats import json_rows
from airloop.use_cases.spec import Feed
from spark_jobs.raw_tables import spark_schema
from spark_jobs.streams.received import PLACE, POSITION, VALUE

REASON: Final = "_reason"
"""Why a message is no record of the feed; null when it is one."""
PAYLOAD: Final = "_payload"
"""What quarantine keeps of the message; null for a record."""
UNDECLARED: Final = "_undeclared"
"""Names of the fields that the feed does not declare."""

NO_OPTIONS: Final = AdapterOptions()
_OFFSET: Final = r"[T ][0-9:.]+ *(Z|[+-][0-9]{2}(:?[0-9]{2})?) *$"


def parsed(received: DataFrame, feed: Feed) -> DataFrame:
    """`received` (see `received.RECEIVED_SCHEMA`) parsed by `parsed_messages`, one row per message."""

    def batches(messages: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in messages:
            yield from parsed_messages(pa.Table.from_batches([batch]), feed).to_batches()

    return received.mapInArrow(batches, spark_schema(parsed_schema(feed)))


def parsed_schema(feed: Feed) -> pa.Schema:
    """The columns of parsed messages: the feed's declared ones, where the message stands, what is wrong."""
    return pa.schema(
        [
            *((column.name, ARROW_TYPES[column.type]) for column in feed.columns),
            (SOURCE_OFFSET, pa.string()),
            (SOURCE_TIME, ARROW_TYPES["timestamp"]),
            (PLACE, pa.string()),
            (POSITION, pa.string()),
            (REASON, pa.string()),
            (PAYLOAD, pa.string()),
            (UNDECLARED, pa.list_(pa.string())),
        ]
    )


def parsed_messages(messages: pa.Table, feed: Feed) -> pa.Table:
    """`messages` as records of `feed`: a table of `parsed_schema` with as many rows, in their order.

    Where `REASON` is not null the declared columns mean nothing. No message raises. A feed with personal
    columns has a fingerprint for its payload and no value in a reason: those might be personal.
    """
    if messages.num_rows == 0:
        return parsed_schema(feed).empty_table()
    values: list[bytes | None] = messages[VALUE].to_pylist()
    rows, documents = json_rows(feed, NO_OPTIONS, [value or b"" for value in values])
    typed = type_rows(feed, rows.columns, NO_OPTIONS, rows.problems)
    problems = {row: list(reasons) for row, reasons in typed.problems.items()}
    for column in feed.columns:
        if column.type == "timestamp":
            for row in _without_offset(rows.columns[column.name], typed.table[column.name]):
                problems.setdefault(row, []).append(f"{column.name}: a time without an offset is no instant")
    problems |= {row: ["no value"] for row, value in enumerate(values) if value is None}
    reasons: list[str | None] = [None] * len(values)
    payloads: list[str | None] = [None] * len(values)
    withheld = any(column.personal is not None for column in feed.columns)
    for row, found in problems.items():
        payload = values[row] or b""
        reasons[row] = "; ".join(problem.split(":")[0] for problem in found) if withheld else "; ".join(found)
        payloads[row] = _fingerprint(payload) if withheld else payload_text(payload)
    declared = {column.name for column in feed.columns}
    names = [_undeclared(document, declared) for document in documents]
    table = typed.table
    for name, array in (
        (SOURCE_OFFSET, pc.binary_join_element_wise(messages[PLACE], messages[POSITION], "/")),
        (SOURCE_TIME, messages[SOURCE_TIME]),
        (PLACE, messages[PLACE]),
        (POSITION, messages[POSITION]),
        (REASON, pa.array(reasons, pa.string())),
        (PAYLOAD, pa.array(payloads, pa.string())),
        (UNDECLARED, pa.array(names, pa.list_(pa.string()))),
    ):
        table = table.append_column(name, array)
    return table.cast(parsed_schema(feed))


def _without_offset(texts: pa.Array, instants: pa.ChunkedArray) -> list[int]:
    """The rows whose text was read as an instant although it has no offset."""
    given = pc.fill_null(pc.match_substring_regex(texts, _OFFSET), True)
    rows: list[int] = pc.indices_nonzero(pc.and_(pc.invert(given), instants.is_valid())).to_pylist()
    return rows


def _undeclared(document: Any, declared: set[str]) -> list[str]:
    names = document.keys() - declared if document else ()
    return sorted(name.encode("utf-8", "replace").decode() for name in names)


def _fingerprint(payload: bytes) -> str:
    return f"sha256:{hashlib.sha256(payload).hexdigest()} bytes:{len(payload)}"
