"""The Kinesis consumer against a server that speaks the API: resharding, throttling, lost records."""

from __future__ import annotations

import json
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airloop.errors import SourceError
from airloop.lakehouse.catalog import open_catalog
from airloop.settings import Settings
from airloop.sources.messages import Message
from airloop.sources.publishers import KinesisPublisher
from spark_jobs.streams import kinesis as consumer
from spark_jobs.streams.kinesis import Consumer
from spark_jobs.streams.positions import NOWHERE, load_tables, states
from tests.streams.conftest import fresh_settings, kinesis_connection
from tests.streams.in_session import Landed, session_for
from tests.streams.traffic import BEGIN, FEEDS, good_message

pytestmark = pytest.mark.timeout(1800)
MIDDLE = str(2**127)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, kinesis_url: str, kinesis: Any) -> Landed:
    settings = fresh_settings(tmp_path_factory.mktemp("landed") / "state")
    there = kinesis.list_streams()["StreamNames"]
    for name in (*FEEDS, "bare"):
        if name in there:  # another test module used the server
            kinesis.delete_stream(StreamName=name)
        kinesis.create_stream(StreamName=name, ShardCount=1)
    return Landed(session_for(settings), settings, "airport_kinesis", kinesis_connection(kinesis_url))


def _put(client: Any, feed: str, *numbers: int) -> None:
    publisher = KinesisPublisher({name: name for name in FEEDS}, client)
    for number in numbers:
        sent = good_message(feed, number, BEGIN)
        publisher.send(Message(feed, BEGIN, f"key {number}", sent.value))
    publisher.flush()


def _rows(settings: Settings, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = open_catalog(settings).load_table(table).scan().to_arrow().to_pylist()
    return found


def _faults(url: str, **counts: int) -> None:
    request = urllib.request.Request(
        f"{url}/faults", json.dumps(counts).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=10).read()


def test_records_land_once_with_their_sequence_numbers(job: Landed, kinesis: Any) -> None:
    _put(kinesis, "flights", 1, 2, 3)
    kinesis.put_record(StreamName="movements", Data=b"poison", PartitionKey="p")
    result = job.to_tip()
    assert result.rows == {"flights": 3, "movements": 0, "weather": 0}
    assert (result.quarantined, result.days) == (1, ("2013-03-04",))
    assert set(job.to_tip().rows.values()) == {0}
    rows = _rows(job.settings, "raw.flights")
    assert sorted(row["_source_key"] for row in rows) == ["F1", "F2", "F3"]
    for row in rows:
        stream, shard, number = row["_source_offset"].split("/")
        assert (stream, shard, len(number)) == ("flights", "shardId-000000000000", 56)
    (poison,) = _rows(job.settings, "raw.quarantine")
    assert poison["_source_offset"].startswith("movements/shardId-000000000000/")


def test_records_in_shards_that_were_split_and_merged_land_once(job: Landed, kinesis: Any) -> None:
    _put(kinesis, "flights", *range(10, 20))
    kinesis.split_shard(StreamName="flights", ShardToSplit="shardId-000000000000", NewStartingHashKey=MIDDLE)
    _put(kinesis, "flights", *range(20, 40))
    kinesis.merge_shards(
        StreamName="flights",
        ShardToMerge="shardId-000000000001",
        AdjacentShardToMerge="shardId-000000000002",
    )
    _put(kinesis, "flights", *range(40, 50))
    assert job.to_tip().rows["flights"] == 40
    _put(kinesis, "flights", 50)
    assert job.to_tip().rows["flights"] == 1
    rows = _rows(job.settings, "raw.flights")
    assert len({row["_source_offset"] for row in rows}) == len(rows)
    assert len({row["_source_offset"].split("/")[1] for row in rows}) == 4


def test_a_child_shard_is_read_after_its_parents(job: Landed, kinesis: Any) -> None:
    """The order within a batch is the order of reading, so a key's records keep theirs across a split."""
    batch = Consumer(kinesis, {"flights": NOWHERE}).gather(10_000, None)
    shards = [place.split("-")[-1] for place in dict.fromkeys(batch.columns["_place"])]
    assert shards[0] == "000000000000"
    assert shards[-1] == "000000000003"
    assert batch.at_tip


def test_throttling_and_expired_iterators_are_waited_out(job: Landed, kinesis: Any, kinesis_url: str) -> None:
    _put(kinesis, "weather", *range(60, 70))
    _faults(kinesis_url, throttled=3, expired=1)
    assert job.to_tip().rows["weather"] == 10


def test_a_batch_is_bounded_and_the_next_goes_on_behind_it(job: Landed, kinesis: Any) -> None:
    _put(kinesis, "movements", *range(100, 130))
    reader = Consumer(kinesis, {"movements": NOWHERE})
    first = reader.gather(10, None)
    assert first.rows >= 10
    rest = reader.gather(10_000, None)
    assert not set(first.columns["_position"]) & set(rest.columns["_position"])
    assert job.to_tip(max_messages=5).rows["movements"] == 30


def test_a_stream_that_was_not_read_within_its_retention_is_an_error_until_a_person_accepts_it(
    job: Landed, kinesis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(kinesis, "weather", 200)
    later = datetime.now(UTC) + timedelta(hours=25)
    monkeypatch.setattr(consumer.ingest_kinesis, "__kwdefaults__", {"clock": lambda: later})
    with pytest.raises(SourceError, match=r"/shardId-[0-9]+, read up to .*--accept-loss"):
        job.to_tip()
    assert job.to_tip(accept_loss=True).rows["weather"] == 1
    assert set(job.to_tip().rows.values()) == {0}


def test_an_idle_stream_notes_that_it_was_read(job: Landed, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(_rows(job.settings, "raw.weather"))
    later = datetime.now(UTC) + timedelta(hours=25 + 7)
    monkeypatch.setattr(consumer.ingest_kinesis, "__kwdefaults__", {"clock": lambda: later})
    job.to_tip()
    state = states(load_tables(job.settings, ["raw.weather"])["raw.weather"])["airport_kinesis"]
    assert state.read_until["weather/shardId-000000000000"] == later.isoformat(timespec="seconds")
    assert len(_rows(job.settings, "raw.weather")) == before


def test_a_missing_stream_is_named(job: Landed, kinesis: Any) -> None:
    kinesis.delete_stream(StreamName="movements")
    with pytest.raises(SourceError, match="movements"):
        job.to_tip()
