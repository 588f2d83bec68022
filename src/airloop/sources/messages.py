"""Records as messages of a stream: JSON as `spark_jobs.streams.parsing` reads it, and a key.

Belongs here: the text form of each type. Does not belong here: brokers, or any feed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa

from airloop.use_cases.spec import Feed


class Message(NamedTuple):
    """One message to publish."""

    feed: str
    event_time: datetime
    key: str
    """The feed's key columns joined by `|`: messages of one key keep their order."""
    value: bytes


def messages_of(feed: Feed, records: pa.Table) -> Iterator[Message]:
    """`records` of `feed` as messages, in the order that they have; null fields are left out.

    Instants are ISO 8601 in UTC with `Z`, local times without an offset.
    """
    assert feed.event_time is not None  # reference data is not streamed
    for record in records.select([column.name for column in feed.columns]).to_pylist():
        fields = {name: _text(value) for name, value in record.items() if value is not None}
        key = "|".join(str(fields.get(name, "")) for name in feed.key)
        yield Message(feed.name, record[feed.event_time], key, encoded(fields))


def encoded(fields: Mapping[str, Any]) -> bytes:
    """`fields`, plain JSON values, as the bytes of a message."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _text(value: Any) -> Any:
    if not isinstance(value, datetime):
        return value
    if value.tzinfo is None:
        return value.isoformat(timespec="microseconds")
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
