"""Kinesis without a connector: a consumer that lands records and sequence numbers in one commit per table.

Belongs here: gathering batches from all shards, and when to stop. Does not belong here: one shard (`shards`),
or what is done with a batch (`landing`).

No connector for Kinesis works with Spark 4.1, so this process reads and Spark does the rest. The consumer has
no bookkeeping of its own: it begins where the tables are (`positions`). Records that the producer's library
packed together (KPL aggregation) are not unpacked; they end in quarantine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from pyspark.sql import SparkSession

from airloop.connections import Connection
from airloop.sources.contract import SOURCE_TIME
from airloop.sources.kinesis_connection import kinesis_client
from spark_jobs.streams.landing import Landing, land, taken_in
from spark_jobs.streams.positions import CLOSED, State
from spark_jobs.streams.received import (
    KINESIS_DIGITS,
    PLACE,
    POSITION,
    RECEIVED_SCHEMA,
    TOPIC,
    VALUE,
    position_text,
)
from spark_jobs.streams.shards import (
    Page,
    Shard,
    ShardReader,
    check_nothing_trimmed,
    list_shards,
    read_until,
    readable,
    retention_of,
)

MOST_BYTES: Final = 32 * 2**20
"""A batch is landed when it is this large; one more page of a shard (10 MiB) may come on top."""
BETWEEN_POLLS: Final = timedelta(seconds=0.25)
"""A shard allows five reads a second, for all its readers together."""
NOTE_EVERY: Final = 4
"""Parts of the retention: so often an idle stream's tables note, in a commit without rows, that it was read.
"""


def _now() -> datetime:
    """The clock: retention is a matter of real time, which no argument can stand for."""
    return datetime.now(UTC)


def ingest_kinesis(
    spark: SparkSession,
    landing: Landing,
    connection: Connection,
    checkpoint: Path,
    *,
    every: timedelta | None,
    max_messages: int,
    accept_loss: bool,
    stop: threading.Event,
    clock: Callable[[], datetime] = _now,
) -> None:
    """Land every record up to the tip as it is now, or, with `every`, go on until `stop` is set.

    A batch has about `max_messages` at most. `checkpoint` is not used. Raises `SourceError` when a Kinesis
    stream is missing, or when records may be gone that were never landed (unless `accept_loss`).
    """
    del checkpoint
    client = kinesis_client(connection)
    states = taken_in(landing)
    retention: dict[str, timedelta] = {}
    accepted: dict[str, str] = {}
    for topic, state in states.items():
        shards = list_shards(client, topic)
        retention[topic] = retention_of(client, topic)
        vanished = check_nothing_trimmed(shards, state, retention[topic], clock(), accept_loss)
        accepted |= dict.fromkeys(vanished, CLOSED)
    consumer = Consumer(client, states, clock)
    tip = clock() if every is None else None
    while not stop.is_set():
        batch = consumer.gather(max_messages, tip)
        notes = {**_notes(batch, states, retention, clock()), **accepted}
        accepted = {}
        if batch.rows or notes:
            land(spark.createDataFrame(batch.as_table()), landing, notes)
            states = {
                topic: state.advanced(State({}, {p: t for p, t in notes.items() if _topic_of(p) == topic}))
                for topic, state in states.items()
            }
        if batch.at_tip and every is None:
            return
        if batch.at_tip and every is not None:
            stop.wait(max(every, BETWEEN_POLLS).total_seconds())


class Batch:
    """Records of several shards, in the order in which they were read from each."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in RECEIVED_SCHEMA.names}
        self.read_until: dict[str, str] = {}
        self.bytes = 0
        self.at_tip = False

    @property
    def rows(self) -> int:
        """How many records it has."""
        return len(self.columns[TOPIC])

    def add(self, shard: Shard, page: Page, now: datetime) -> None:
        """Take in one page of `shard`."""
        for record in page.records:
            self.columns[TOPIC].append(shard.stream)
            self.columns[PLACE].append(shard.place)
            self.columns[POSITION].append(position_text(record["SequenceNumber"], KINESIS_DIGITS))
            self.columns[SOURCE_TIME].append(record["ApproximateArrivalTimestamp"])
            self.columns[VALUE].append(record["Data"])
            self.bytes += len(record["Data"])
        self.read_until[shard.place] = read_until(page, now)

    def as_table(self) -> pa.Table:
        """The records as `RECEIVED_SCHEMA` has them."""
        return pa.table(self.columns, schema=RECEIVED_SCHEMA)


class Consumer:
    """Reads all shards of some Kinesis streams, parents before children, from where `states` are."""

    def __init__(
        self, client: Any, states: Mapping[str, State], clock: Callable[[], datetime] = _now
    ) -> None:
        self._client = client
        self._states = states
        self._clock = clock
        self._readers: dict[str, ShardReader] = {}
        self._finished = {
            place for state in states.values() for place, until in state.read_until.items() if until == CLOSED
        }

    def gather(self, max_messages: int, tip: datetime | None) -> Batch:
        """The next batch: full, or all that there is.

        With `tip` a shard is read no further once it has shown a record that arrived then or later.
        """
        batch = Batch()
        done: set[str] = set()
        while batch.rows < max_messages and batch.bytes < MOST_BYTES:
            readers = [reader for reader in self._open() if reader.shard.place not in done]
            if not readers:
                batch.at_tip = True
                break
            for reader in readers:
                now = self._clock()
                page = reader.read()
                batch.add(reader.shard, page, now)
                if page.at_end:
                    self._finished.add(reader.shard.place)
                elif not page.behind or (tip and now - page.behind >= tip):
                    done.add(reader.shard.place)
                if batch.rows >= max_messages or batch.bytes >= MOST_BYTES:
                    break
        return batch

    def _open(self) -> Iterator[ShardReader]:
        """Readers of the shards that may be read now."""
        for topic, state in self._states.items():
            for shard in readable(list_shards(self._client, topic), self._finished):
                if shard.place not in self._readers:
                    position = state.positions.get(shard.place)
                    self._readers[shard.place] = ShardReader(self._client, shard, position)
                yield self._readers[shard.place]


def _notes(
    batch: Batch, states: Mapping[str, State], retention: Mapping[str, timedelta], now: datetime
) -> dict[str, str]:
    """What the tables should note of how far the shards were read.

    A table that gets records notes everything; another one gets a commit for the note's sake alone, so only
    for a shard that ended, or when the note that it has grows old.
    """
    with_records = set(batch.columns[TOPIC])
    notes = {}
    for place, until in batch.read_until.items():
        topic = _topic_of(place)
        noted = states[topic].read_until.get(place)
        ended = until == CLOSED and noted is not None and noted != CLOSED
        old = noted is not None and noted != CLOSED and _age(noted, now) > retention[topic] / NOTE_EVERY
        if topic in with_records or ended or old:
            notes[place] = until
    return notes


def _age(noted: str, now: datetime) -> timedelta:
    return now - datetime.fromisoformat(noted)


def _topic_of(place: str) -> str:
    return place.rsplit("/", maxsplit=1)[0]
