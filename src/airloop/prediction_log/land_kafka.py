"""From Kafka to a log's table: every record that a topic has, exactly once.

Belongs here: reading a topic from where the table is, and committing how far that was. Does not belong here:
the table (`land`), or sending (`forward`).

The commit that adds rows says in a property of the table up to which offset of each partition they reach, and
the last sequence of each writer. Two landings at once, on whatever machines, cannot both commit what follows
the same offsets: the later one starts again from what the table then says.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple

import pyarrow as pa
from pydantic import BaseModel
from pyiceberg.table import Table

from airloop.connections import Connection
from airloop.errors import SourceError
from airloop.lakehouse.catalog import open_catalog
from airloop.lakehouse.replace import despite_conflicts
from airloop.prediction_log.logs import Log
from airloop.prediction_log.tables import LANDED, ROWS_AT_ONCE, table_of
from airloop.references import LandedPredictions
from airloop.settings import Settings
from airloop.sources.kafka_connection import client_options

log = logging.getLogger(__name__)

STATE: Final = "airloop.predictions.kafka"
"""Property of the table: a `State` as JSON."""
PATIENCE_SECONDS: Final = 30.0
WRITERS_KEPT: Final = timedelta(days=30)
"""A file that is sent again is younger than this; its writer's sequences tell that it was landed."""
MOST_ROUNDS: Final = 20
MESSAGES_AT_ONCE: Final = 5_000


class State(BaseModel):
    """How far the table has got."""

    offsets: dict[str, int] = {}
    """By partition, that of the next message."""
    writers: dict[str, tuple[int, date]] = {}
    """By writer, its last sequence and the day when that was landed."""


class _Moved(Exception):
    """Another landing was first."""


class _Message(NamedTuple):
    partition: str
    offset: int
    value: bytes


def land_from_kafka(
    settings: Settings, kept: Log, connection: Connection, *, accept_loss: bool = False
) -> LandedPredictions:
    """Take the topic's messages up to its present end into the table; safe to repeat, to kill, and beside
    others.

    Raises `SourceError` when there is no such topic, or when messages that were never landed are gone from it
    (unless `accept_loss`), and `ConnectionError` when the broker does not answer.
    """
    table = table_of(open_catalog(settings), kept)
    rows = damaged = 0
    for _ in range(MOST_ROUNDS):
        state = State.model_validate_json(table.properties.get(STATE, "{}"))
        try:
            # What was committed before another landing came in between stays, and is in the table's state.
            for found, broken in _landed(table, kept, connection, state, accept_loss=accept_loss):
                rows, damaged = rows + found, damaged + broken
        except _Moved:
            table.refresh()
            continue
        if damaged:
            log.error("%d messages of %s could not be read and are not in the table", damaged, kept.table)
        log.info("%d records landed in %s from Kafka", rows, kept.table)
        return LandedPredictions(table=kept.table, rows=rows, files=0, damaged_lines=damaged)
    raise ConnectionError(f"other landings of {kept.table} were first, {MOST_ROUNDS} times")


def _landed(
    table: Table, kept: Log, connection: Connection, state: State, *, accept_loss: bool
) -> Iterator[tuple[int, int]]:
    """Commit the messages after `state` in pieces; the rows and the unreadable messages of each."""
    offsets, writers = dict(state.offsets), dict(state.writers)
    today = datetime.now(UTC).date()
    # What landed from the spool before Kafka was configured is sent too, where its file was not done.
    for writer, sequence in json.loads(table.properties.get(LANDED, "{}")).items():
        writers.setdefault(writer, (sequence, today))
    batch: list[dict[str, Any]] = []
    damaged = 0

    def commit() -> tuple[int, int]:
        nonlocal state, batch, damaged
        done = State(
            offsets=offsets,
            writers={name: seen for name, seen in writers.items() if today - seen[1] <= WRITERS_KEPT},
        )
        if done.offsets != state.offsets:
            _commit(table, kept, batch, state, done)
        counted = (len(batch), damaged)
        state, batch, damaged = done.model_copy(deep=True), [], 0
        return counted

    with closing(_Topic(kept.table, connection)) as topic:
        for message in topic.messages(offsets, accept_loss=accept_loss):
            row = kept.row_of(message.value)
            offsets[message.partition] = message.offset + 1
            if row is None:
                damaged += 1
            elif row["sequence"] > writers.get(row["writer"], (0, today))[0]:
                writers[row["writer"]] = (row["sequence"], today)
                batch.append(row)
            if len(batch) >= ROWS_AT_ONCE:
                yield commit()
    yield commit()


def _commit(table: Table, kept: Log, rows: list[dict[str, Any]], before: State, after: State) -> None:
    """Raises `_Moved` where the table is not at `before` any more."""
    arrow = pa.Table.from_pylist(rows, schema=kept.schema)

    def attempt() -> None:
        # A commit that was lost to another refreshes the table: then this tells whose it was.
        if State.model_validate_json(table.properties.get(STATE, "{}")) != before:
            raise _Moved
        with table.transaction() as transaction:
            # An append even of no rows: it is what makes a commit from an older state fail.
            transaction.append(arrow)
            transaction.set_properties({STATE: json.dumps(after.model_dump(mode="json"), sort_keys=True)})

    despite_conflicts(table, attempt)


class _Topic:
    """A topic of the broker behind a connection."""

    def __init__(self, name: str, connection: Connection) -> None:
        from confluent_kafka import Consumer

        self._name = name
        self._consumer: Any = Consumer(
            {
                **client_options(connection),
                # Offsets are the table's: no group's are ever read or committed.
                "group.id": f"airloop-landing-{uuid.uuid4().hex}",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
            }
        )

    def close(self) -> None:
        self._consumer.close()

    def _ends(self, partition: int) -> tuple[int, int]:
        """The first offset and the one after the last; waits for a partition that changes its leader."""
        from confluent_kafka import KafkaException, TopicPartition

        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                low, high = self._consumer.get_watermark_offsets(
                    TopicPartition(self._name, partition), timeout=PATIENCE_SECONDS
                )
                return low, high
            except KafkaException as error:
                if time.monotonic() > until:
                    raise ConnectionError(f"partition {partition} of {self._name}: {error}") from error
                time.sleep(0.2)

    def messages(self, offsets: Mapping[str, int], *, accept_loss: bool) -> Iterator[_Message]:
        """From `offsets` (of a partition that is not in it, from its beginning) up to the present ends."""
        from confluent_kafka import TopicPartition

        ends: dict[int, int] = {}
        next_of: dict[int, int] = {}
        assigned = []
        for partition in self._partitions():
            low, high = self._ends(partition)
            start = offsets.get(str(partition), low)
            if not low <= start <= high:
                if not accept_loss:
                    raise _lost(self._name, partition, start, low, high)
                start = low
            if start < high:
                ends[partition], next_of[partition] = high, start
                assigned.append(TopicPartition(self._name, partition, start))
        self._consumer.assign(assigned)
        while ends:
            # No more than there are: it waits for all that it is asked for until the time is up.
            left = sum(end - next_of[partition] for partition, end in ends.items())
            found = self._consumer.consume(min(left, MESSAGES_AT_ONCE), timeout=PATIENCE_SECONDS)
            if not found:
                raise ConnectionError(f"the broker sent nothing of {self._name} for {PATIENCE_SECONDS:.0f} s")
            for message in found:
                if message.error() is not None:
                    raise ConnectionError(f"reading {self._name}: {message.error()}")
                partition, offset = message.partition(), message.offset()
                if partition not in ends:
                    continue
                next_of[partition] = offset + 1
                if offset < ends[partition]:
                    yield _Message(str(partition), offset, message.value())
                if offset + 1 >= ends[partition]:
                    del ends[partition]

    def _partitions(self) -> list[int]:
        try:
            known = self._consumer.list_topics(self._name, timeout=PATIENCE_SECONDS).topics
        except Exception as error:
            raise ConnectionError(f"the broker did not say what it has of {self._name}: {error}") from error
        topic = known.get(self._name)
        if topic is None or topic.error is not None:
            raise SourceError(
                expected=f"the topic {self._name}",
                found="none of that name on the broker",
                next_step="create it; docs/how-to/find-a-prediction.md says how",
            )
        return sorted(topic.partitions)


def _lost(topic: str, partition: int, start: int, low: int, high: int) -> SourceError:
    return SourceError(
        expected=f"partition {partition} of {topic} to have the message at offset {start}, which comes next",
        found=f"offsets {low} to {high}: what was between is gone, or the topic was made anew",
        next_step="find out why (a retention shorter than the landing's outage?); to go on with what is "
        "there, run python -m airloop.prediction_log.land --accept-loss",
    )
