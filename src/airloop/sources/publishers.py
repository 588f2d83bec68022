"""Sends messages to Kafka or Kinesis, so that each arrives at least once and a key keeps its order.

Belongs here: the two clients. Does not belong here: what is sent, or when.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from airloop.connections import Connection
from airloop.errors import SourceError
from airloop.sources.kafka_connection import client_options
from airloop.sources.kinesis_connection import kinesis_client
from airloop.sources.messages import Message
from airloop.use_cases.spec import Stream

PATIENCE_SECONDS: Final = 120.0
MOST_PER_CALL: Final = 500
"""Records of one Kinesis call; the API's own limit."""
MOST_BYTES_PER_CALL: Final = 4 * 2**20
LONGEST_BACK_OFF_SECONDS: Final = 5.0


class Publisher(Protocol):
    """Takes messages; what it has taken is sent at the latest when `flush` returns."""

    def send(self, message: Message) -> None:
        """Take one message, and send it soon."""
        ...

    def flush(self) -> None:
        """Wait until the broker has everything; raises `SourceError` if it will not take it."""
        ...


def open_publisher(stream: Stream, connection: Connection) -> Publisher:
    """A publisher to `stream`."""
    if stream.broker == "kafka":
        return KafkaPublisher(stream.topics, client_options(connection))
    return KinesisPublisher(stream.topics, kinesis_client(connection))


class KafkaPublisher:
    """An idempotent producer: its own retries neither duplicate nor reorder."""

    def __init__(self, topics: Mapping[str, str], options: Mapping[str, str]) -> None:
        from confluent_kafka import Producer

        self._topics = topics
        self._refused: list[str] = []
        self._producer: Any = Producer(
            {**options, "enable.idempotence": True, "linger.ms": 20, "compression.type": "lz4"}
        )

    def send(self, message: Message) -> None:
        """See `Publisher.send`; waits while the client's queue is full."""
        while True:
            try:
                self._producer.produce(
                    self._topics[message.feed],
                    message.value,
                    message.key,
                    on_delivery=self._delivered,
                )
                break
            except BufferError:
                self._producer.poll(1)
        self._producer.poll(0)

    def flush(self) -> None:
        """See `Publisher.flush`."""
        left = self._producer.flush(PATIENCE_SECONDS)
        if left or self._refused:
            raise SourceError(
                expected="the Kafka broker to take every message",
                found=f"{left} not taken within {PATIENCE_SECONDS:.0f} s; refused: {self._refused[:3]}",
                next_step="look at the broker, then publish the interval again: a second copy does no harm",
            )

    def _delivered(self, error: Any, _: Any) -> None:
        if error is not None:
            self._refused.append(str(error))


class KinesisPublisher:
    """Puts messages in bulk; a call is repeated for what it did not take before the next call is made."""

    def __init__(
        self, topics: Mapping[str, str], client: Any, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._topics = topics
        self._client = client
        self._sleep = sleep
        self._waiting: dict[str, list[dict[str, Any]]] = {}
        self._bytes = 0

    def send(self, message: Message) -> None:
        """See `Publisher.send`."""
        waiting = self._waiting.setdefault(self._topics[message.feed], [])
        waiting.append({"Data": message.value, "PartitionKey": message.key[:256] or "-"})
        self._bytes += len(message.value) + len(message.key)
        if len(waiting) >= MOST_PER_CALL or self._bytes >= MOST_BYTES_PER_CALL:
            self.flush()

    def flush(self) -> None:
        """See `Publisher.flush`."""
        for stream, records in self._waiting.items():
            if records:
                self._put(stream, records)
        self._waiting, self._bytes = {}, 0

    def _put(self, stream: str, records: list[dict[str, Any]]) -> None:
        waited, pause = 0.0, 0.1
        while True:
            answer = self._client.put_records(StreamName=stream, Records=records)["Records"]
            refused = [(r, a) for r, a in zip(records, answer, strict=True) if "ErrorCode" in a]
            if not refused:
                return
            if waited > PATIENCE_SECONDS:
                raise SourceError(
                    expected=f"the Kinesis stream {stream} to take every record",
                    found=f"{len(refused)} refused, the first with {refused[0][1]['ErrorCode']}",
                    next_step="give it more shards or publish more slowly, then publish the interval again: "
                    "a second copy does no harm",
                )
            self._sleep(pause)
            waited, pause = waited + pause, min(2 * pause, LONGEST_BACK_OFF_SECONDS)
            records = [record for record, _ in refused]
