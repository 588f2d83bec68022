"""Killed at any point and started again, the stream job loses nothing and lands nothing twice."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from confluent_kafka import Producer

from airloop.settings import Settings
from spark_jobs.streams.received import KAFKA_DIGITS, KINESIS_DIGITS, position_text
from tests.streams.conftest import fresh_settings, kafka_job, kinesis_job
from tests.streams.kafka_broker import create_topics
from tests.streams.killing import kill_at, stages
from tests.streams.ledger import Ledger
from tests.streams.traffic import FEEDS, Sent, traffic

pytestmark = [pytest.mark.data_faults, pytest.mark.timeout(1800)]

KILLS = 10
"""Of each broker."""
MESSAGES_PER_SECOND = 60
Record = Callable[[str, object], None]


class Sender(Protocol):
    """Sends one message, and notes in its ledger where the broker put it."""

    ledger: Ledger

    def send(self, message: Sent) -> None: ...

    def flush(self) -> None: ...


class KafkaSender:
    def __init__(self, address: str) -> None:
        self.ledger = Ledger()
        self._producer = Producer({"bootstrap.servers": address, "linger.ms": 5})

    def send(self, message: Sent) -> None:
        def delivered(error: Any, record: Any) -> None:
            assert error is None
            offset = position_text(record.offset(), KAFKA_DIGITS)
            self.ledger.add(
                message.feed, f"{record.topic()}/{record.partition()}/{offset}", good=message.good
            )

        self._producer.produce(message.feed, message.value, message.key, on_delivery=delivered)
        self._producer.poll(0)

    def flush(self) -> None:
        assert self._producer.flush(60) == 0


class KinesisSender:
    def __init__(self, client: Any) -> None:
        self.ledger = Ledger()
        self._client = client

    def send(self, message: Sent) -> None:
        put = self._client.put_record(StreamName=message.feed, Data=message.value, PartitionKey=message.key)
        offset = position_text(put["SequenceNumber"], KINESIS_DIGITS)
        self.ledger.add(message.feed, f"{message.feed}/{put['ShardId']}/{offset}", good=message.good)

    def flush(self) -> None:
        """Nothing waits."""


@contextmanager
def sending(sender: Sender, seed: int) -> Iterator[None]:
    """Traffic goes on in the background meanwhile."""
    stop, failures = threading.Event(), list[Exception]()

    def run() -> None:
        try:
            for message in traffic(seed):
                if stop.wait(1 / MESSAGES_PER_SECOND):
                    return
                sender.send(message)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        sender.flush()
        assert not failures


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return fresh_settings(tmp_path / "state")


def test_kafka_survives_kills_at_any_point(settings: Settings, broker: str, record_property: Record) -> None:
    create_topics(broker, *FEEDS)
    sender, job, random_ = KafkaSender(broker), kafka_job(settings, broker), random.Random(41)
    with sending(sender, seed=1):
        for stage in stages(KILLS, random_, checkpoint=True):
            kill_at(job, stage, random_, "--max-messages", "60")
    job.to_tip()
    _judge("kafka", sender.ledger, settings, job.stream, record_property)


def test_kinesis_survives_kills_at_any_point(
    settings: Settings, kinesis_url: str, kinesis: Any, record_property: Record
) -> None:
    for feed in FEEDS:
        kinesis.create_stream(StreamName=feed, ShardCount=2)
    sender, job, random_ = KinesisSender(kinesis), kinesis_job(settings, kinesis_url), random.Random(42)
    with sending(sender, seed=2):
        for number, stage in enumerate(stages(KILLS, random_, checkpoint=False)):
            kill_at(job, stage, random_, "--max-messages", "60")
            if number == KILLS // 2:
                middle = str(2**126)
                kinesis.split_shard(
                    StreamName="flights", ShardToSplit="shardId-000000000000", NewStartingHashKey=middle
                )
    job.to_tip()
    _judge("kinesis", sender.ledger, settings, job.stream, record_property)


def _judge(broker: str, ledger: Ledger, settings: Settings, stream: str, record: Record) -> None:
    figures = ledger.compare(settings, stream)
    malformed = sum(len(offsets) for offsets in ledger.malformed.values())
    for name, value in {"broker": broker, "kills": KILLS, "malformed": malformed, **figures}.items():
        record(name, value)
    assert figures["messages"] > 500
    assert malformed > 20
    assert (figures["lost"], figures["duplicated"], figures["misplaced"]) == (0, 0, 0)
