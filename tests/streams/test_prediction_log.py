"""Predictions by way of a real Kafka: each reaches the table once, whatever is killed, repeated or down."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from airloop.connections import PREDICTION_LOG, Connection, variable_of
from airloop.errors import SourceError
from airloop.lakehouse.catalog import open_catalog
from airloop.prediction_log import forward, land_kafka
from airloop.prediction_log.forward import Forwarder
from airloop.prediction_log.land import land, land_spool
from airloop.prediction_log.land_kafka import land_from_kafka
from airloop.prediction_log.logs import OUTCOMES, PREDICTIONS
from airloop.prediction_log.spool import Spool, line_of, segments_of
from airloop.settings import REPOSITORY, Settings
from tests.prediction_log.records import record

TOPIC = PREDICTIONS.table


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state")


@pytest.fixture
def connection(broker: str) -> Iterator[Connection]:
    """The connection, with topics that are there and empty."""
    admin = AdminClient({"bootstrap.servers": broker})
    names = [kept.table for kept in (PREDICTIONS, OUTCOMES)]
    for future in admin.create_topics([NewTopic(name, 3, 1) for name in names]).values():
        future.result(30)
    found = Connection(id=PREDICTION_LOG, conn_type="kafka", extra={"bootstrap.servers": broker})
    until(lambda: all(has_leaders(found, name) for name in names))
    yield found
    for future in admin.delete_topics(names).values():
        future.result(30)
    until(lambda: not set(names) & set(admin.list_topics(timeout=10).topics))


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def times_landed(settings: Settings) -> Counter[str]:
    rows = open_catalog(settings).load_table(TOPIC).scan(selected_fields=("request_id",)).to_arrow()
    return Counter(rows["request_id"].to_pylist())


def requests(numbers: range) -> Counter[str]:
    return Counter(f"request {number}" for number in numbers)


def forwarding(settings: Settings, writer: str, options: dict[str, str]) -> Forwarder:
    return Forwarder(settings.prediction_spool_dir, writer, TOPIC, options)


def in_topic(connection: Connection, topic: str = TOPIC) -> int:
    options = {**connection.extra, "group.id": "count"}
    with closing(Consumer(options)) as consumer:
        marks = [consumer.get_watermark_offsets(TopicPartition(topic, number), 10) for number in range(3)]
    return sum(high - low for low, high in marks)


def has_leaders(connection: Connection, topic: str) -> bool:
    try:
        return in_topic(connection, topic) == 0
    except KafkaException:
        return False


def test_records_arrive_once_and_files_go(
    settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(settings.prediction_spool_dir, segment_bytes=20_000)
    forwarder = forwarding(settings, spool.writer, connection.extra)
    for number in range(200):
        assert spool.append([record(number)])
    until(lambda: in_topic(connection) == 200)
    document = {"conn_type": "kafka", "extra": connection.extra}
    monkeypatch.setenv(variable_of(PREDICTION_LOG), json.dumps(document))
    assert land(settings).rows == 200
    assert land(settings).rows == 0
    spool.append([record(200)])
    spool.close()
    forwarder.close()
    assert not segments_of(settings.prediction_spool_dir), "the broker has all"
    assert land(settings).rows == 1
    assert times_landed(settings) == requests(range(201))


def test_what_is_sent_again_is_not_taken_again(
    settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Spool(settings.prediction_spool_dir)) as spool:
        spool.append([record(number) for number in range(10)])
    # Some of it landed from the spool, before Kafka was there; then a gateway died after it had sent it all.
    assert land_spool(settings, PREDICTIONS).files == 1
    with closing(Spool(settings.prediction_spool_dir)) as spool:
        spool.append([record(number) for number in range(10, 20)])
    (segment,) = segments_of(settings.prediction_spool_dir)
    kept = segment.path.read_bytes()
    forwarding(settings, spool.writer, connection.extra).close()
    assert not segment.path.exists()
    assert land_from_kafka(settings, PREDICTIONS, connection).rows == 10
    segment.path.write_bytes(kept)
    monkeypatch.setattr(forward, "ORPHAN_SECONDS", 0.0)
    forwarding(settings, "another", connection.extra).close()
    assert not segment.path.exists(), "what a dead process left is sent by another"
    assert in_topic(connection) == 20
    assert land_from_kafka(settings, PREDICTIONS, connection).rows == 0
    assert times_landed(settings) == requests(range(20))


def test_a_file_that_is_still_written_to_is_left_to_its_writer(
    settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "ORPHAN_SECONDS", 0.0)
    with closing(Spool(settings.prediction_spool_dir)) as spool:
        spool.append([record(1)])
        forwarding(settings, "another", connection.extra).close()
        assert in_topic(connection) == 0
        until(lambda: len(segments_of(settings.prediction_spool_dir)) == 1)


def test_a_broker_that_is_down_delays_nobody_and_loses_nothing(
    settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "FLUSH_SECONDS", 1.0)
    with closing(Spool(settings.prediction_spool_dir)) as spool:
        down = forwarding(settings, spool.writer, {"bootstrap.servers": "127.0.0.1:1"})
        for number in range(20):
            begun = time.monotonic()
            assert spool.append([record(number)])
            assert time.monotonic() - begun < 1
        down.close()
        assert in_topic(connection) == 0
        up = forwarding(settings, spool.writer, connection.extra)
        until(lambda: in_topic(connection) == 20)
    up.close()
    assert land_from_kafka(settings, PREDICTIONS, connection).rows == 20
    assert times_landed(settings) == requests(range(20))


def test_a_gateway_that_is_killed_loses_nothing_that_it_kept(
    settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process writes, sends, and says what it has kept; then `kill -9`."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from airloop.prediction_log.forward import Forwarder\n"
        "from airloop.prediction_log.spool import Spool\n"
        "from tests.prediction_log.records import record\n"
        "folder = Path(sys.argv[1])\n"
        "spool = Spool(folder)\n"
        f"Forwarder(folder, spool.writer, {TOPIC!r}, {{'bootstrap.servers': sys.argv[2]}})\n"
        "for number in range(1_000_000):\n"
        "    assert spool.append([record(number)])\n"
        "    print(number, flush=True)\n"
    )
    arguments = [str(settings.prediction_spool_dir), connection.extra["bootstrap.servers"]]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        until(lambda: in_topic(connection) > 100)
        process.send_signal(signal.SIGKILL)
        kept = len(process.stdout.read().splitlines())
    landed = land_from_kafka(settings, PREDICTIONS, connection).rows
    assert landed > 100
    monkeypatch.setattr(forward, "ORPHAN_SECONDS", 0.0)
    forwarding(settings, "the next process", connection.extra).close()
    land_from_kafka(settings, PREDICTIONS, connection)
    found = times_landed(settings)
    assert set(found.values()) == {1}
    # The last record may have been kept and not said.
    assert requests(range(kept)).keys() <= found.keys() <= requests(range(kept + 1)).keys()
    assert not segments_of(settings.prediction_spool_dir)


def test_landings_at_once_take_each_record_once(
    settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(land_kafka, "ROWS_AT_ONCE", 50)
    producer = Producer(dict(connection.extra))
    for number in range(300):
        writer = f"writer {number % 3}"
        producer.produce(TOPIC, line_of(writer, number // 3 + 1, record(number)), writer)
    producer.flush(30)
    open_catalog(settings)
    with ThreadPoolExecutor(4) as pool:
        landings = [pool.submit(land_from_kafka, settings, PREDICTIONS, connection) for _ in range(4)]
        assert sum(landing.result(120).rows for landing in landings) == 300
    assert times_landed(settings) == requests(range(300))


def test_what_cannot_be_read_is_counted_and_passed_over(settings: Settings, connection: Connection) -> None:
    producer = Producer(dict(connection.extra))
    for line in (b"{", line_of("a", 1, record(0)), b'{"writer": "a", "sequence": 2, "record": {}}'):
        producer.produce(TOPIC, line, "a")
    producer.flush(30)
    landed = land_from_kafka(settings, PREDICTIONS, connection)
    assert (landed.rows, landed.damaged_lines) == (1, 2)
    assert land_from_kafka(settings, PREDICTIONS, connection).damaged_lines == 0


def test_messages_that_are_gone_before_they_landed_fail_the_landing(
    settings: Settings, connection: Connection
) -> None:
    producer = Producer(dict(connection.extra))

    def send(numbers: range) -> None:
        for number in numbers:
            producer.produce(TOPIC, line_of("a", number + 1, record(number)), "a")
        producer.flush(30)

    send(range(3))
    assert land_from_kafka(settings, PREDICTIONS, connection).rows == 3
    send(range(3, 6))
    admin = AdminClient(dict(connection.extra))
    partitions = [TopicPartition(TOPIC, number, -1) for number in range(3)]
    for future in admin.delete_records(partitions).values():
        future.result(30)
    send(range(6, 8))
    with pytest.raises(SourceError, match="comes next") as refused:
        land_from_kafka(settings, PREDICTIONS, connection)
    assert "--accept-loss" in str(refused.value)
    assert land_from_kafka(settings, PREDICTIONS, connection, accept_loss=True).rows == 2
    assert times_landed(settings) == Counter({f"request {number}": 1 for number in (0, 1, 2, 6, 7)})


def test_without_a_topic_the_landing_says_so(settings: Settings, broker: str) -> None:
    there = Connection(id=PREDICTION_LOG, conn_type="kafka", extra={"bootstrap.servers": broker})
    with pytest.raises(SourceError, match="the topic serving"):
        land_from_kafka(settings, PREDICTIONS, there)
