"""The contract that all batch adapters keep, each read from the real thing."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import zstandard

from airloop.intervals import day_interval
from airloop.settings import Settings
from airloop.sources.catalogue import ADAPTERS, adapter_class
from airloop.sources.contract import SourceAdapter
from airloop.sources.nycflights_contract import FEEDS
from tests.sources.arrivals import (
    DAY,
    FEED,
    INTERVAL,
    REFERENCE,
    Row,
    around,
    as_json,
    as_text,
    offsets,
    parquet_table,
    read,
    records,
    row,
    rows_of,
    values,
)
from tests.sources.servers import Answer, Asked, HttpServer, PostgresServer, S3Server

ONE_DAY = timedelta(days=1)


class World:
    """A source that holds what it is told to, and the adapter that reads it."""

    def __init__(self, put: Callable[[str, Sequence[Row]], None], adapter: SourceAdapter) -> None:
        self.put, self.adapter = put, adapter


def csv_bytes(rows: Sequence[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([as_text(value) for value in item.values()] for item in rows)
    return text.getvalue().encode()


def jsonl_bytes(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(as_json(item)) + "\n" for item in rows).encode()


def parquet_bytes(rows: Sequence[Row]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(parquet_table(rows), sink)
    return sink.getvalue()


def zip_bytes(rows: Sequence[Row]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("day.csv", csv_bytes(rows))
        archive.writestr("__MACOSX/._day.csv", b"\0\1")
    return sink.getvalue()


FILES: dict[str, tuple[str, Callable[[Sequence[Row]], bytes]]] = {
    "csv": ("csv", csv_bytes),
    "csv.gz": ("csv", lambda rows: gzip.compress(csv_bytes(rows))),
    "csv.zst": ("csv", lambda rows: zstandard.compress(csv_bytes(rows))),
    "csv.zip": ("csv", zip_bytes),
    "jsonl": ("jsonl", jsonl_bytes),
    "parquet": ("parquet", parquet_bytes),
}


def files_world(folder: Path, kind: str) -> World:
    form, write = FILES[kind]

    def put(feed: str, rows: Sequence[Row]) -> None:
        (folder / f"{feed}.{kind}").write_bytes(write(rows))

    options = {"path": f"{folder}/{{feed}}.{kind}", "format": form}
    return World(put, adapter_class("files")(Settings(), options, None))


def s3_world(s3: S3Server, prefix: str, kind: str) -> World:
    form, write = FILES[kind]
    options = {"path": f"s3://{s3.bucket}/{prefix}/{{feed}}.{kind}", "format": form}
    return World(
        lambda feed, rows: s3.put(f"{prefix}/{feed}.{kind}", write(rows)),
        adapter_class("files")(Settings(), options, s3.connection()),
    )


SQL_COLUMNS = {
    "arrivals": "flight_id varchar(20), pilot text, seats bigint, gate smallint, "
    "delay_minutes numeric(9, 3), speed real, diverted boolean, landed_at timestamptz, "
    "landed_local timestamp",
    "gates": "gate text, seats integer",
}


def sql_world(postgres: PostgresServer, schema: str) -> World:
    def put(feed: str, rows: Sequence[Row]) -> None:
        postgres.execute(f'DROP TABLE IF EXISTS "{schema}"."{feed}"')
        postgres.execute(f'CREATE TABLE "{schema}"."{feed}" ({SQL_COLUMNS[feed]})')
        marks = ", ".join(["%s"] * len(rows[0]))
        postgres.execute(
            f'INSERT INTO "{schema}"."{feed}" VALUES ({marks})', [tuple(item.values()) for item in rows]
        )

    postgres.execute(f'CREATE SCHEMA "{schema}"')
    options = {f"{feed}.table": f"{schema}.{feed}" for feed in SQL_COLUMNS}
    return World(put, adapter_class("sql")(Settings(), options, postgres.connection()))


def http_world(http: HttpServer) -> World:
    held: dict[str, list[dict[str, object]]] = {}

    def respond(asked: Asked) -> Answer:
        rows, offset = held[asked.path.strip("/")], int(asked.query["offset"])
        return Answer({"data": rows[offset : offset + 10], "meta": {"count": len(rows)}})

    def put(feed: str, rows: Sequence[Row]) -> None:
        held[feed] = [as_json(item) for item in rows]

    http.respond = respond
    options = {
        "url": "/{feed}?from={start}&to={end}",
        "records": "data",
        "paging": "offset",
        "total": "meta.count",
    }
    return World(put, adapter_class("http")(Settings(), options, http.connection()))


WORLDS = [*FILES, "s3-csv", "s3-parquet", "sql", "http"]


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    name = request.param
    unique = f"{tmp_path.parent.name}-{tmp_path.name}"
    if name == "sql":
        return sql_world(request.getfixturevalue("postgres"), unique)
    if name == "http":
        return http_world(request.getfixturevalue("http"))
    if name.startswith("s3-"):
        return s3_world(request.getfixturevalue("s3"), unique, name.removeprefix("s3-"))
    return files_world(tmp_path, name)


def test_every_kind_of_source_gives_the_same_typed_values(world: World) -> None:
    rows = rows_of()
    world.put("arrivals", rows)
    pieces = read(world.adapter)
    assert values(pieces) == rows
    assert not any(piece.malformed for piece in pieces)


def test_an_interval_has_its_start_and_not_its_end(world: World) -> None:
    rows = rows_of()
    world.put("arrivals", [*rows, *around()])
    assert values(read(world.adapter)) == rows
    before = values(read(world.adapter, interval=day_interval(DAY - ONE_DAY)))
    after = values(read(world.adapter, interval=day_interval(DAY + ONE_DAY)))
    assert [item["flight_id"] for item in (*before, *after)] == ["F000900", "F000901"]


def test_the_same_interval_twice_gives_the_same_records(world: World) -> None:
    world.put("arrivals", rows_of())
    assert records(read(world.adapter)) == records(read(world.adapter))


def test_a_record_that_changed_at_the_source_has_another_offset(world: World) -> None:
    rows = rows_of()
    world.put("arrivals", rows)
    before = offsets(read(world.adapter))
    rows[4] = {**rows[4], "seats": 1}
    rows[7] = {**rows[7], "gate": 7}
    world.put("arrivals", rows)
    pieces = read(world.adapter)
    after = offsets(pieces)
    assert values(pieces) == rows
    assert after["F000004"] != before["F000004"]
    assert after["F000007"] != before["F000007"]


def test_each_record_has_an_offset_of_its_own(world: World) -> None:
    world.put("arrivals", rows_of(count=100))
    assert len(set(offsets(read(world.adapter)).values())) == 100


def test_no_offset_repeats_personal_data(world: World) -> None:
    world.put("arrivals", rows_of())
    assert not any("Zoë" in offset for offset in offsets(read(world.adapter)).values())


def test_reference_data_comes_whole_whatever_the_interval(world: World) -> None:
    rows = [{"gate": "A1", "seats": 3}, {"gate": "B2", "seats": None}]
    world.put("gates", rows)
    assert values(read(world.adapter, REFERENCE), REFERENCE) == rows
    elsewhere = read(world.adapter, REFERENCE, day_interval(DAY + 99 * ONE_DAY))
    assert records(elsewhere) == records(read(world.adapter, REFERENCE))


@pytest.mark.parametrize("column", ["flight_id", "seats", "landed_at"])
def test_a_record_without_a_required_value_is_set_aside_alone(world: World, column: str) -> None:
    rows = rows_of()
    world.put("arrivals", [*rows, {**row(500, INTERVAL.start), column: None}])
    pieces = read(world.adapter)
    assert values(pieces) == rows
    (malformed,) = (item for piece in pieces for item in piece.malformed)
    assert malformed.reason == f"{column}: no value, and the feed requires one"
    assert malformed.offset
    assert malformed.time is not None
    assert column == "flight_id" or "F000500" in malformed.payload
    again = [item for piece in read(world.adapter) for item in piece.malformed]
    assert again == [malformed]


def test_a_day_without_records_is_empty(world: World) -> None:
    world.put("arrivals", rows_of())
    pieces = read(world.adapter, interval=day_interval(DAY + 30 * ONE_DAY))
    assert records(pieces) == []


@pytest.mark.parametrize("feed", FEEDS, ids=lambda feed: feed.name)
def test_the_replay_keeps_the_same_contract(feed) -> None:
    replay = adapter_class("nycflights")(Settings(), {}, None)
    once, twice = (records(read(replay, feed)) for _ in range(2))
    assert once == twice
    assert once
    if feed.event_time is not None:
        assert all(INTERVAL.start <= item[feed.event_time] < INTERVAL.end for item in once)
        assert not any(piece.malformed for piece in read(replay, feed))


def test_all_adapters_are_under_this_contract() -> None:
    assert set(ADAPTERS) == {"files", "sql", "http", "nycflights"}
    assert FEED.event_time is not None
