"""What a broker delivers, in one shape for all brokers: where each message stands, and its bytes.

Belongs here: the columns of a received batch, and the text form of a place and a position. Does not belong
here: any broker, or what is in a message.

Names begin with an underscore, which no column of a feed does. A *place* is one ordered log (a Kafka
partition, a Kinesis shard); a *position* is where a message stands in it, as digits of a fixed width, so that
texts sort as numbers do.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from airloop.sources.contract import SOURCE_TIME

TOPIC: Final = "_topic"
"""Kafka topic or Kinesis stream."""
PLACE: Final = "_place"
"""`topic/partition` or `stream/shard`."""
POSITION: Final = "_position"
VALUE: Final = "_value"
"""The message's bytes; null for a message without a value."""

RECEIVED_SCHEMA: Final = pa.schema(
    [
        (TOPIC, pa.string()),
        (PLACE, pa.string()),
        (POSITION, pa.string()),
        (SOURCE_TIME, pa.timestamp("us", tz="UTC")),
        (VALUE, pa.binary()),
    ]
)

KAFKA_DIGITS: Final = 20
KINESIS_DIGITS: Final = 56


def position_text(number: int | str, digits: int) -> str:
    """The position `number` as text of `digits` digits."""
    return str(number).zfill(digits)
