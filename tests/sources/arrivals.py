"""A feed with a column of every type, and its records, for tests of all adapters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from airloop.intervals import Interval, day_interval
from airloop.sources.contract import Delivery, SourceAdapter, check_contract
from airloop.use_cases.spec import Column, Feed

FEED = Feed(
    name="arrivals",
    key=("flight_id",),
    event_time="landed_at",
    columns=(
        Column(name="flight_id", type="string"),
        Column(name="pilot", type="string", required=False, personal="hash"),
        Column(name="seats", type="long"),
        Column(name="gate", type="integer", required=False),
        Column(name="delay_minutes", type="double", required=False),
        Column(name="speed", type="float", required=False),
        Column(name="diverted", type="boolean"),
        Column(name="landed_at", type="timestamp"),
        Column(name="landed_local", type="local_timestamp", required=False),
    ),
)
REFERENCE = Feed(
    name="gates",
    key=("gate",),
    event_time=None,
    columns=(Column(name="gate", type="string"), Column(name="seats", type="long", required=False)),
)

DAY = date(2013, 3, 5)
INTERVAL = day_interval(DAY)
"""The day that tests ask for."""

Row = dict[str, Any]


def row(number: int, landed_at: datetime, **changes: Any) -> Row:
    """A record whose values follow from its number; the odd ones lack what is optional."""
    full = number % 2 == 0
    values: Row = {
        "flight_id": f"F{number:06d}",
        "pilot": f'Zoë, “{number}” "Z"' if full else None,
        "seats": 2**40 + number,
        "gate": number if full else None,
        "delay_minutes": number / 8 if full else None,
        "speed": number / 4 if full else None,
        "diverted": number % 3 == 0,
        "landed_at": landed_at,
        "landed_local": landed_at.replace(tzinfo=None) - timedelta(hours=5) if full else None,
    }
    return {**values, **changes}


def rows_of(interval: Interval = INTERVAL, count: int = 24, first: int = 0) -> list[Row]:
    """`count` records spread evenly over `interval`, the first at its start."""
    step = (interval.end - interval.start) / count
    return [row(first + n, interval.start + n * step) for n in range(count)]


def around(interval: Interval = INTERVAL) -> list[Row]:
    """Records just outside `interval`: a microsecond before its start, and at its end."""
    return [row(900, interval.start - timedelta(microseconds=1)), row(901, interval.end)]


def as_text(value: Any) -> str | None:
    """A value as a text file has it."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return None if value is None else json.dumps(value) if not isinstance(value, str) else value


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """A record as a JSON API has it; what is missing is left out."""
    return {
        name: as_text(value) if isinstance(value, datetime) else value
        for name, value in values.items()
        if value is not None
    }


def read(adapter: SourceAdapter, feed: Feed = FEED, interval: Interval = INTERVAL) -> list[Delivery]:
    """What `adapter` delivers, each piece checked against the contract."""
    pieces = list(adapter.read(feed, interval))
    for piece in pieces:
        check_contract(feed, piece.records)
    return pieces


def records(pieces: Iterable[Delivery]) -> list[Row]:
    """All records of `pieces`."""
    return [record for piece in pieces for record in piece.records.to_pylist()]


def values(pieces: Iterable[Delivery], feed: Feed = FEED) -> list[Row]:
    """All records, in order of their key, with the feed's columns alone."""
    names = [column.name for column in feed.columns]
    found = [{name: record[name] for name in names} for record in records(pieces)]
    return sorted(found, key=lambda record: [record[name] for name in feed.key])


def offsets(pieces: Iterable[Delivery], feed: Feed = FEED) -> dict[str, str]:
    """Each record's offset by its key."""
    return {
        "|".join(record[name] for name in feed.key): record["_source_offset"] for record in records(pieces)
    }


def in_utc(*moment: int) -> datetime:
    """An instant."""
    return datetime(*moment, tzinfo=UTC)  # type: ignore[arg-type,misc]  # year, month, day, ...


def parquet_table(rows: Iterable[Row]) -> pa.Table:
    """Records as a Parquet writer would have them."""
    return pa.Table.from_pylist(list(rows))
