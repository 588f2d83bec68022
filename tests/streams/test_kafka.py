"""The Kafka stream's job against a real broker: what lands, where it goes on, and what it refuses."""

from __future__ import annotations

import re
import shutil
import threading
import time
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

import certifi
import pyarrow.compute as pc
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from airloop.connections import Connection
from airloop.dotted import load
from airloop.errors import SourceError
from airloop.intervals import Interval
from airloop.lakehouse.catalog import open_catalog
from airloop.settings import Settings
from airloop.sources.kafka_connection import client_options, spark_options
from airloop.sources.messages import Message
from airloop.sources.nycflights import NycFlightsReplay
from airloop.sources.publish_replay import merged, publish
from airloop.sources.publishers import KafkaPublisher
from airloop.use_cases.catalogue import use_case
from spark_jobs.clean import raw_records
from spark_jobs.ingest import ingest
from spark_jobs.streams.kafka import Retained, starting_offsets
from spark_jobs.streams.positions import State
from tests.streams.conftest import fresh_settings
from tests.streams.in_session import Landed, session_for
from tests.streams.kafka_broker import create_topics, running_broker
from tests.streams.traffic import BEGIN, FEEDS, good_message

pytestmark = pytest.mark.timeout(1800)

DAY = Interval(BEGIN, BEGIN.replace(day=5))
HOURS = Interval(BEGIN.replace(hour=9), BEGIN.replace(hour=15))
TWICE = 50
"""Messages that the producer sends a second time."""


def _rows(settings: Settings, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = open_catalog(settings).load_table(table).scan().to_arrow().to_pylist()
    return found


def _produce(address: str, topic: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": address})
    for value in values:
        producer.produce(topic, value, "key")
    assert producer.flush(30) == 0


def _weather(number: int) -> bytes:
    return good_message("weather", number, BEGIN).value


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running_broker(tmp_path_factory.mktemp("broker")) as address:
        create_topics(address, *FEEDS)
        yield address


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, address: str) -> Landed:
    settings = fresh_settings(tmp_path_factory.mktemp("landed") / "state")
    host, port = address.split(":")
    connection = Connection(id="airloop_kafka", conn_type="kafka", host=host, port=int(port))
    return Landed(session_for(settings), settings, "airport_kafka", connection)


@pytest.fixture(scope="module")
def replayed(job: Landed, address: str) -> list[Message]:
    """Six hours of the replay, a few messages twice, and some poison: published and landed."""
    spec = use_case("flight_delay")
    messages = list(merged(spec, [spec.feed(name) for name in FEEDS], HOURS, job.settings))
    publisher = KafkaPublisher({name: name for name in FEEDS}, {"bootstrap.servers": address})
    publish([*messages, *messages[:TWICE]], publisher, speed=0)
    _produce(address, "weather", b"poison", b"{}")
    result = job.to_tip()
    assert sum(result.rows.values()) == len(messages) + TWICE
    assert (result.quarantined, result.days) == (2, ("2013-03-04",))
    return messages


def test_every_message_lands_once_with_its_place_and_poison_in_quarantine(
    job: Landed, replayed: list[Message]
) -> None:
    for name in FEEDS:
        sent = [message.value for message in replayed if message.feed == name]
        rows = _rows(job.settings, f"raw.{name}")
        offsets = {row["_source_offset"] for row in rows}
        assert len(rows) == len(offsets) > len(sent)
        assert len({row["_source_key"] for row in rows}) == len(sent)
        assert all(re.fullmatch(rf"{name}/[01]/[0-9]{{20}}", offset) for offset in offsets)
        assert {row["_source"] for row in rows} == {"airport_kafka"}
    poison = _rows(job.settings, "raw.quarantine")
    assert {row["payload"] for row in poison} == {"poison", "{}"}
    assert all(row["feed"] == "weather" and row["reason"] for row in poison)


def test_what_the_replay_publishes_is_what_the_batch_delivers(job: Landed, replayed: list[Message]) -> None:
    """The same values, through JSON and back; and the messages are in the order of their event times."""
    assert replayed == sorted(replayed, key=lambda message: message.event_time)
    for name in FEEDS:
        feed = use_case("flight_delay").feed(name)
        delivered = [d.records for d in NycFlightsReplay(job.settings, {}, None).read(feed, HOURS)]
        table = open_catalog(job.settings).load_table(f"raw.{name}").scan().to_arrow()
        for column in feed.columns:
            streamed = set(pc.unique(table[column.name]).to_pylist())
            assert streamed == {value for part in delivered for value in part[column.name].to_pylist()}


def test_batch_and_stream_land_in_the_same_tables_and_cleaning_keeps_one_of_each(
    job: Landed, replayed: list[Message], tmp_path: Path
) -> None:
    """Whichever of the two makes the tables: the columns and their types are the same."""
    spec, settings = use_case("flight_delay"), fresh_settings(tmp_path / "state")
    spark = session_for(settings)
    ingest(spark, spec, DAY, settings)
    by_batch = {name: spark.table(f"raw.{name}").schema for name in FEEDS}
    here = job._replace(spark=spark, settings=settings)
    landed = here.to_tip().rows
    for name in FEEDS:
        assert spark.table(f"raw.{name}").schema == by_batch[name]
        assert landed[name] > 0
        assert job.spark.table(f"raw.{name}").schema == by_batch[name], "the stream made this one"
    again = ingest(spark, spec, DAY, settings)
    assert again.withdrawn == 0, "a batch does not withdraw what a stream brought"
    clean = load(spec.transform).clean(raw_records(spark, spec, DAY))
    for name, key in (("flights", ["flight_id"]), ("movements", ["flight_id", "kind"])):
        alone = spark.table(f"raw.{name}").where("_source = 'nycflights'").select(key).distinct().count()
        assert clean[name].count() == alone


def test_a_second_run_lands_nothing_and_a_lost_checkpoint_changes_nothing(
    job: Landed, replayed: list[Message], address: str
) -> None:
    before = {name: len(_rows(job.settings, f"raw.{name}")) for name in (*FEEDS, "quarantine")}
    again = job.to_tip()
    assert set(again.rows.values()) == {0}
    shutil.rmtree(job.settings.state_dir / "checkpoints" / "flight_delay" / "airport_kafka")
    _produce(address, "weather", _weather(1))
    after = job.to_tip()
    assert after.rows == {"flights": 0, "movements": 0, "weather": 1}
    assert len(_rows(job.settings, "raw.weather")) == before["weather"] + 1
    assert len(_rows(job.settings, "raw.quarantine")) == before["quarantine"]


def test_a_table_that_was_rolled_back_is_filled_again_although_the_checkpoint_is_ahead(
    job: Landed, replayed: list[Message], address: str
) -> None:
    table = open_catalog(job.settings).load_table("raw.weather")
    earlier = table.current_snapshot().snapshot_id
    before = {row["_source_offset"] for row in _rows(job.settings, "raw.weather")}
    _produce(address, "weather", _weather(2), _weather(3))
    assert job.to_tip().rows["weather"] == 2
    table.refresh().manage_snapshots().set_current_snapshot(snapshot_id=earlier).commit()
    assert job.to_tip().rows["weather"] == 2
    offsets = [row["_source_offset"] for row in _rows(job.settings, "raw.weather")]
    assert len(offsets) == len(set(offsets)) == len(before) + 2


def test_messages_deleted_before_they_were_landed_are_an_error_until_a_person_accepts_it(
    job: Landed, replayed: list[Message], address: str
) -> None:
    job.to_tip()
    _produce(address, "flights", *(good_message("flights", number, BEGIN).value for number in range(9)))
    client = AdminClient({"bootstrap.servers": address})
    ends = client.list_topics("flights", timeout=30).topics["flights"].partitions
    doomed = [TopicPartition("flights", number, -1) for number in ends]
    for future in client.delete_records(doomed).values():
        future.result(30)
    with pytest.raises(SourceError, match=r"of flights/.*--accept-loss"):
        job.to_tip()
    _produce(address, "flights", good_message("flights", 10, BEGIN).value)
    assert job.to_tip(accept_loss=True).rows["flights"] == 1
    assert set(job.to_tip().rows.values()) == {0}


def test_a_continuous_run_lands_what_comes_and_stops_when_told(
    job: Landed, replayed: list[Message], address: str
) -> None:
    stop = threading.Event()
    thread = job.in_background(stop)
    try:
        for number in range(100, 103):
            _produce(address, "weather", _weather(number), b"poison")
            before, deadline = len(_rows(job.settings, "raw.weather")), time.monotonic() + 120
            while len(_rows(job.settings, "raw.weather")) == before:
                assert time.monotonic() < deadline
                assert thread.is_alive()
                time.sleep(0.2)
    finally:
        stop.set()
        thread.join(120)
    assert not thread.is_alive()
    assert set(job.to_tip().rows.values()) == {0}


def test_a_second_run_at_the_same_time_is_refused(job: Landed, replayed: list[Message]) -> None:
    lock = job.settings.state_dir / "checkpoints" / "flight_delay" / "airport_kafka.lock"
    with lock.open("a") as file:
        flock(file, LOCK_EX)
        with pytest.raises(SourceError, match="another one at work"):
            job.to_tip()


def test_a_topic_that_ends_before_what_was_landed_is_another_topic() -> None:
    taken = {"t": State({"t/0": "00000000000000000010"})}
    assert starting_offsets({"t/0": Retained(0, 11)}, taken, accept_loss=False) == {"t/0": 11}
    with pytest.raises(SourceError, match="made anew"):
        starting_offsets({"t/0": Retained(0, 3)}, taken, accept_loss=True)


def test_a_partition_that_was_added_is_read_from_its_beginning() -> None:
    taken = {"t": State({"t/0": "00000000000000000010"})}
    there = {"t/0": Retained(0, 20), "t/1": Retained(4, 9)}
    assert starting_offsets(there, taken, accept_loss=False) == {"t/0": 11, "t/1": 4}


def test_a_connection_serves_both_clients(tmp_path: Path) -> None:
    connection = Connection(
        id="airloop_kafka",
        conn_type="kafka",
        host="broker",
        login='a"b',
        password="secret",
        extra={
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "ssl.ca.location": "/ca.pem",
        },
    )
    native, java = client_options(connection), spark_options(connection)
    assert native["bootstrap.servers"] == java["kafka.bootstrap.servers"] == "broker:9092"
    assert (native["sasl.username"], native["sasl.password"]) == ('a"b', "secret")
    assert java["kafka.sasl.jaas.config"] == (
        'org.apache.kafka.common.security.scram.ScramLoginModule required username="a\\"b" password="secret";'
    )
    assert java["kafka.ssl.truststore.location"] == "/ca.pem"
    assert java["kafka.ssl.truststore.type"] == "PEM"
    assert "kafka.sasl.password" not in java
    Producer({**native, "ssl.ca.location": _certificates(tmp_path)})


def _certificates(folder: Path) -> str:
    path = folder / "ca.pem"
    shutil.copy(certifi.where(), path)
    return str(path)
