"""Kafka through Spark Structured Streaming: from where the tables are to the tip, or for as long as wanted.

Belongs here: where each partition is read from, the query, and telling lost data from an outage. Does not
belong here: what is done with a batch (`landing`).
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.connections import Connection
from airloop.errors import SourceError
from airloop.sources.contract import SOURCE_TIME
from airloop.sources.kafka_connection import client_options, spark_options
from spark_jobs.streams.checkpoint import discard_unless_usable
from spark_jobs.streams.landing import Landing, land, taken_in
from spark_jobs.streams.positions import State
from spark_jobs.streams.received import KAFKA_DIGITS, PLACE, POSITION, TOPIC, VALUE

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 30.0
_LOSS: Final = ("KAFKA_DATA_LOSS", "may have been lost", "may have been missed", "may have been deleted")
"""What the connector says, under `failOnDataLoss`, when offsets that should follow are not there."""


class Retained(NamedTuple):
    """What the broker holds of one partition."""

    first: int
    """Offset of the first message that is still there."""
    end: int
    """Offset after the last message."""


def ingest_kafka(
    spark: SparkSession,
    landing: Landing,
    connection: Connection,
    checkpoint: Path,
    *,
    every: timedelta | None,
    max_messages: int,
    accept_loss: bool,
    stop: threading.Event,
) -> None:
    """Land every message up to the tip as it is now, or, with `every`, go on until `stop` is set.

    A batch has about `max_messages` at most. Raises `SourceError` when a topic is missing, or when messages
    that were never landed are gone from the broker (unless `accept_loss`).
    """
    there = retained(client_options(connection), list(landing.feeds))
    starts = starting_offsets(there, taken_in(landing), accept_loss)
    discard_unless_usable(checkpoint, {place: kept.first for place, kept in there.items()}, starts)
    query = _query(spark, landing, connection, checkpoint, starts, every, max_messages)
    try:
        while not query.awaitTermination(1):
            if stop.is_set():
                query.stop()
    except StreamingQueryException as error:
        if any(sign in str(error) for sign in _LOSS):
            raise _lost(str(error).splitlines()[0]) from error
        raise


def retained(options: Mapping[str, str], topics: list[str]) -> dict[str, Retained]:
    """What the broker holds, by place; raises `SourceError` for a topic that does not exist."""
    client = AdminClient(dict(options))
    known = client.list_topics(timeout=PATIENCE_SECONDS).topics
    missing = [topic for topic in topics if topic not in known]
    if missing:
        raise SourceError(
            expected=f"the topics {', '.join(topics)}",
            found=f"no {', '.join(missing)} on the broker",
            next_step="create them, or correct the stream's topics in the use case's spec",
        )
    partitions = [TopicPartition(topic, number) for topic in topics for number in known[topic].partitions]
    firsts = client.list_offsets({p: OffsetSpec.earliest() for p in partitions})
    ends = client.list_offsets({p: OffsetSpec.latest() for p in partitions})
    try:
        return {
            f"{p.topic}/{p.partition}": Retained(
                firsts[p].result(PATIENCE_SECONDS).offset, ends[p].result(PATIENCE_SECONDS).offset
            )
            for p in partitions
        }
    except KafkaException as error:
        raise ConnectionError(f"the broker did not say which offsets it holds: {error}") from error


def starting_offsets(
    retained: Mapping[str, Retained], taken_in: Mapping[str, State], accept_loss: bool
) -> dict[str, int]:
    """By place, the offset that the tables (`taken_in`, by topic) are to be continued from.

    Raises `SourceError` when messages between the two are gone (unless `accept_loss`), and when a topic ends
    before what was landed from it, for then it is another topic of the same name.
    """
    starts, gone = {}, []
    for place, there in retained.items():
        position = taken_in[place.rsplit("/", maxsplit=1)[0]].positions.get(place)
        following = int(position) + 1 if position is not None else there.first
        if following > there.end:
            raise SourceError(
                expected=f"{place} to reach at least offset {following}, where landing stopped",
                found=f"an end at offset {there.end}: the topic was made anew",
                next_step="land it as another stream: change the stream's name in the use case's spec",
            )
        if following < there.first:
            gone.append(f"offsets {following} to {there.first - 1} of {place}")
        starts[place] = max(following, there.first)
    if gone and not accept_loss:
        raise _lost(", ".join(gone))
    if gone:
        log.error("accepted as lost: %s", ", ".join(gone))
    return starts


def _lost(found: str) -> SourceError:
    return SourceError(
        expected="the broker to hold every message that was not landed yet",
        found=f"{found}; deleted by retention, or by a person",
        next_step="deliver the period again from a batch source if it matters, then run this job once with "
        "--accept-loss to go on from what the broker holds; keep retention longer than the longest outage",
    )


def _query(
    spark: SparkSession,
    landing: Landing,
    connection: Connection,
    checkpoint: Path,
    starts: Mapping[str, int],
    every: timedelta | None,
    max_messages: int,
) -> Any:
    by_topic: dict[str, dict[str, int]] = {}
    for place, offset in starts.items():
        topic, partition = place.rsplit("/", maxsplit=1)
        by_topic.setdefault(topic, {})[partition] = offset
    options = {
        # What a transactional producer took back was never sent.
        "kafka.isolation.level": "read_committed",
        **spark_options(connection),
        "subscribe": ",".join(by_topic),
        "startingOffsets": json.dumps(by_topic),
        "failOnDataLoss": "true",
        "maxOffsetsPerTrigger": str(max_messages),
    }
    messages = spark.readStream.format("kafka").options(**options).load()

    def land_batch(batch: DataFrame, _: int) -> None:
        land(received_from(batch), landing)

    writer = messages.writeStream.foreachBatch(land_batch).option("checkpointLocation", str(checkpoint))
    if every is None:
        return writer.trigger(availableNow=True).start()
    return writer.trigger(processingTime=f"{int(every.total_seconds() * 1000)} milliseconds").start()


def received_from(batch: DataFrame) -> DataFrame:
    """A batch of Spark's Kafka source as `received.RECEIVED_SCHEMA` has it."""
    return batch.select(
        F.col("topic").alias(TOPIC),
        F.concat_ws("/", "topic", F.col("partition").cast("string")).alias(PLACE),
        F.lpad(F.col("offset").cast("string"), KAFKA_DIGITS, "0").alias(POSITION),
        F.col("timestamp").alias(SOURCE_TIME),
        F.col("value").alias(VALUE),
    )
