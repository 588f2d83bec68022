"""Makes a delivery of the rows of any source: good ones typed as the feed declares, bad ones set aside alone.

Belongs here: rows of text, JSON or Arrow values, whatever source they came from. Does not belong here: what
counts as a value of a type (`column_types`), reading a source, or where a row stands in it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from airloop.errors import SourceError
from airloop.intervals import Interval
from airloop.sources.column_types import MEANING, can_become, is_unicode, shown, type_column
from airloop.sources.contract import (
    ARROW_TYPES,
    SOURCE_OFFSET,
    SOURCE_TIME,
    Delivery,
    Malformed,
    record_schema,
)
from airloop.sources.options import AdapterOptions
from airloop.use_cases.spec import ColumnType, Feed

PIECE_ROWS: Final = 50_000
"""Records that an adapter holds in memory at a time."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Source time of reference data whose source does not say when it was written."""

_INSTANT: Final = ARROW_TYPES["timestamp"]

Problems = dict[int, list[str]]
"""What is wrong with a row, by its position."""


class TypedRows(NamedTuple):
    """Rows with the feed's columns; a value that could not be typed is null and has its problem."""

    table: pa.Table
    problems: Problems


def type_rows(
    feed: Feed, columns: Mapping[str, pa.Array], options: AdapterOptions, problems: Problems | None = None
) -> TypedRows:
    """`columns` (text, or whatever `can_become` allows) as the feed declares them.

    `problems` are those that reading the rows had found; a required value that is missing is one too.
    """
    found: Problems = defaultdict(list, {row: list(reasons) for row, reasons in (problems or {}).items()})
    unread = set(found)
    typed = {}
    for column in feed.columns:
        values, refused = type_column(columns[column.name], column.type, options)
        for row in refused:
            value = shown(columns[column.name][row].as_py())
            found[row].append(f"{column.name}: {value} is no {MEANING[column.type]}")
        if column.required or column.name in (*feed.key, feed.event_time):
            explained = unread.union(refused)
            for row in pc.indices_nonzero(values.is_null()).to_pylist():
                if row not in explained:
                    found[row].append(f"{column.name}: no value, and the feed requires one")
        typed[column.name] = values
    return TypedRows(pa.table(typed), {row: found[row] for row in sorted(found)})


def deliver(
    feed: Feed,
    interval: Interval,
    rows: TypedRows,
    *,
    offsets: pa.Array,
    times: pa.Array,
    payload: Callable[[int], str],
) -> Delivery:
    """The rows that lie in `interval`, good ones as records and the others as malformed.

    `payload` gives a row as received. A malformed row whose event time cannot be read may belong to any
    interval, and is delivered.
    """
    inside = _inside(rows.table, feed, interval)
    good = pa.array([True] * rows.table.num_rows, pa.bool_())
    malformed = []
    if rows.problems:
        good = pa.array([row not in rows.problems for row in range(rows.table.num_rows)], pa.bool_())
        malformed = [
            Malformed(
                offset=offsets[row].as_py(),
                time=times[row].as_py(),
                reason="; ".join(reasons),
                payload=payload(row),
            )
            for row, reasons in rows.problems.items()
            if inside[row].as_py() is not False
        ]
    table = rows.table.append_column(SOURCE_OFFSET, offsets).append_column(SOURCE_TIME, times)
    kept = table.filter(pc.and_(good, pc.fill_null(inside, False)))
    return Delivery(kept.cast(record_schema(feed)), tuple(malformed))


def event_times(feed: Feed, rows: TypedRows) -> pa.Array:
    """The rows' event times, `EPOCH` where there is none: the source time of a source that states none."""
    if feed.event_time is None:
        return pa.array([EPOCH] * rows.table.num_rows, _INSTANT)
    return pc.fill_null(_instants(rows.table[feed.event_time]), EPOCH).combine_chunks()


def content_hashes(feed: Feed, rows: TypedRows) -> pa.Array:
    """A text per row that changes when a value of the row does: the offset of a source without places.

    Personal columns are left out: who knows the rest of a row could find the value by trying.
    """
    texts = [
        pc.fill_null(pc.cast(rows.table[column.name], pa.string()), "\0")
        for column in feed.columns
        if column.personal is None
    ]
    if not texts:
        return pa.array([hashlib.sha256().hexdigest()[:32]] * rows.table.num_rows, pa.string())
    joined = pc.binary_join_element_wise(*texts, "\x1f").to_pylist()
    return pa.array([text_hash(text) for text in joined], pa.string())


def text_hash(text: str) -> str:
    """A short text that stands for `text`."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def payload_text(received: bytes) -> str:
    """`received` as the quarantine keeps it: text, or base64 where it is not text."""
    try:
        return received.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(received).decode()


def require_columns(feed: Feed, options: AdapterOptions, found: Sequence[str], *, where: str) -> None:
    """Raises `SourceError` naming every column of `feed` that `where` lacks, with those that it has."""
    missing = [
        f"{name} (for {column.name})" if name != column.name else name
        for column in feed.columns
        if (name := options.at_source(column.name)) not in found
    ]
    if missing:
        raise SourceError(
            expected=f"columns {', '.join(missing)} in {where}",
            found=f"only {', '.join(found)}; a column was renamed or dropped",
            next_step="have the source mended, or say with the option column.<name> what it calls the column",
        )


def require_types(feed: Feed, options: AdapterOptions, schema: pa.Schema, *, where: str) -> None:
    """Raises `SourceError` naming every column whose type in `schema` cannot become the declared one."""
    wrong = [
        f"{column.name} is {found}, not {column.type}"
        for column in feed.columns
        if not can_become(found := schema.field(options.at_source(column.name)).type, column.type)
    ]
    if wrong:
        raise SourceError(
            expected=f"columns of {where} that can become what feed {feed.name!r} declares",
            found="; ".join(wrong),
            next_step="have the source mended, or change the columns' types in the use case's spec",
        )


def columns_of_documents(
    feed: Feed, options: AdapterOptions, documents: Sequence[Any]
) -> tuple[dict[str, pa.Array], Problems]:
    """JSON objects as columns of text, and the rows whose values no column can hold.

    `options.column` may reach into an object by a dotted path. A text column takes JSON strings alone, so
    that 1 and 1.0 do not become two names of one thing; other columns take strings, numbers and booleans.
    """
    problems: Problems = defaultdict(list)
    for row, document in enumerate(documents):
        if not isinstance(document, dict):
            problems[row].append(f"{shown(document)} is no JSON object")
    columns = {
        column.name: texts_of_documents(
            documents, options.at_source(column.name), column.name, column.type, problems
        )
        for column in feed.columns
    }
    return columns, problems


def texts_of_documents(
    documents: Sequence[Any], path: str, name: str, declared: ColumnType, problems: Problems
) -> pa.Array:
    """The values at `path` of JSON objects, as text for the column `name`; adds to `problems` of the rows."""
    values = [at_path(document, path) for document in documents]
    texts: list[str | None] = []
    for row, value in enumerate(values):
        if value is None or isinstance(value, str):
            texts.append(value)
            continue
        text = None
        if declared == "string":
            problems[row].append(f"{name}: {shown(value)} is no text")
        elif isinstance(value, dict | list):
            problems[row].append(f"{name}: {shown(value)} is not a single value")
        else:
            text = json.dumps(value)
        texts.append(text)
    return _text_array(name, texts, problems)


def at_path(document: Any, path: str) -> Any:
    """What stands in a JSON document at a dotted path (all of it at the empty path), None where nothing."""
    if isinstance(document, dict) and path in document:
        return document[path]
    for name in path.split(".") if path else ():
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    return document


def parse_json(text: str) -> Any:
    """`text` as JSON, NaN and infinities included. Raises `ValueError`."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _text_array(name: str, texts: list[str | None], problems: Problems) -> pa.Array:
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:  # JSON can write half of a surrogate pair, which is no text
        for row, text in enumerate(texts):
            if text is not None and not is_unicode(text):
                problems[row].append(f"{name}: {shown(text)} is no valid Unicode")
                texts[row] = None
        return pa.array(texts, pa.string())


def _inside(table: pa.Table, feed: Feed, interval: Interval) -> pa.ChunkedArray:
    """Whether each row lies in `interval`: null where its event time could not be read."""
    if feed.event_time is None:
        return pa.chunked_array([pa.array([True] * table.num_rows, pa.bool_())])
    times = _instants(table[feed.event_time])
    start, end = (pa.scalar(moment, _INSTANT) for moment in interval)
    return pc.and_(pc.greater_equal(times, start), pc.less(times, end))


def _instants(times: pa.ChunkedArray) -> pa.ChunkedArray:
    return times if times.type == _INSTANT else pc.assume_timezone(times, "UTC")
