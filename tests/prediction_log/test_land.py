"""Every record reaches the table once, whatever is killed, repeated or written meanwhile."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airloop.lakehouse.catalog import open_catalog
from airloop.prediction_log import land as landing
from airloop.prediction_log.land import land
from airloop.prediction_log.record import TABLE
from airloop.prediction_log.spool import Segment, Spool, segments_of
from airloop.settings import Settings
from tests.prediction_log.records import AT, record


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state")


@pytest.fixture
def spool(settings: Settings) -> Iterator[Spool]:
    with closing(Spool(settings.prediction_spool_dir)) as opened:
        yield opened


def landed(settings: Settings) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = open_catalog(settings).load_table(TABLE).scan().to_arrow().to_pylist()
    return rows


def times_landed(settings: Settings) -> Counter[str]:
    return Counter(row["request_id"] for row in landed(settings))


def requests(numbers: range) -> Counter[str]:
    return Counter(f"request {number}" for number in numbers)


def test_a_backlog_is_what_whole_files_have_until_they_are_landed(settings: Settings) -> None:
    with closing(Spool(settings.prediction_spool_dir, segment_bytes=1)) as spool:
        assert spool.backlog() == (0, 0.0)
        spool.append([record(1)])
        # An idle gateway keeps its last file for hours: nothing waits in it.
        assert spool.backlog() == (0, 0.0)
        spool.append([record(2)])
        first = segments_of(settings.prediction_spool_dir)[0].path
        hour_ago = time.time() - 3600
        os.utime(first, (hour_ago, hour_ago))
        found = spool.backlog()
        assert found.bytes == first.stat().st_size
        assert found.oldest_seconds == pytest.approx(3600, abs=60)
        land(settings)
        assert spool.backlog() == (0, 0.0)


def test_a_record_arrives_as_it_was(settings: Settings, spool: Spool) -> None:
    spool.append([record(5)])
    assert land(settings).rows == 1
    (row,) = landed(settings)
    assert (row["writer"], row["sequence"]) == (spool.writer, 1)
    assert row["prediction_time"] == AT
    assert json.loads(row["features"]) == {"temperature_f": 31.5, "wind_gust_mph": None}
    assert row["missing_features"] == ["wind_gust_mph"]
    assert (row["version"], row["answer"]) == (3, [0.25])
    table = open_catalog(settings).load_table(TABLE)
    assert [field.name for field in table.spec().fields] == ["predicted_day"]


def test_what_a_writer_adds_meanwhile_arrives_with_the_next_run(settings: Settings, spool: Spool) -> None:
    spool.append([record(1)])
    assert land(settings).rows == 1
    assert land(settings).rows == 0
    spool.append([record(2)])
    assert land(settings).rows == 1
    assert times_landed(settings) == requests(range(1, 3))
    assert len(segments_of(settings.prediction_spool_dir)) == 1


def test_files_go_when_the_table_has_them_and_their_writer_has_gone_on(settings: Settings) -> None:
    spool = Spool(settings.prediction_spool_dir, segment_bytes=1)
    for number in range(3):
        spool.append([record(number)])
    first = land(settings)
    assert (first.rows, first.files) == (3, 2)
    spool.close()
    assert (land(settings).rows, land(settings).files) == (0, 0)
    assert not segments_of(settings.prediction_spool_dir)
    assert times_landed(settings) == requests(range(3))


@pytest.mark.parametrize("killed_at", ["after the commit", "between the files"])
def test_a_landing_that_is_killed_takes_nothing_twice(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    spool = Spool(settings.prediction_spool_dir, segment_bytes=1)
    for number in range(4):
        spool.append([record(number)])
    spool.close()
    allowed = 0 if killed_at == "after the commit" else 2
    unlink = Path.unlink

    def killed(self: Path, *arguments: Any) -> None:
        nonlocal allowed
        allowed -= 1
        if allowed < 0:
            raise KeyboardInterrupt
        unlink(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            land(settings)
    assert land(settings).rows == 0
    assert times_landed(settings) == requests(range(4))
    assert not segments_of(settings.prediction_spool_dir)


def test_rows_that_are_committed_in_pieces_are_taken_once(
    settings: Settings, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing, "ROWS_AT_ONCE", 3)
    spool.append([record(number) for number in range(10)])
    append = landing._append
    calls = 0

    def fails_at_the_third(*arguments: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return append(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(landing, "_append", fails_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            land(settings)
    assert times_landed(settings) == requests(range(6))
    assert land(settings).rows == 4
    assert times_landed(settings) == requests(range(10))


def test_damaged_lines_are_counted_and_what_is_around_them_arrives(settings: Settings) -> None:
    with closing(Spool(settings.prediction_spool_dir)) as spool:
        spool.append([record(1), record(2), record(3)])
    (segment,) = segments_of(settings.prediction_spool_dir)
    lines = segment.path.read_bytes().splitlines(keepends=True)
    segment.path.write_bytes(lines[0] + b"\x00" * 100 + b"\n" + lines[2] + b'{"torn')
    found = land(settings)
    assert (found.rows, found.damaged_lines) == (2, 1)
    assert times_landed(settings) == Counter(["request 1", "request 3"])


def test_writers_and_landings_side_by_side(settings: Settings) -> None:
    def write(first: int) -> None:
        with closing(Spool(settings.prediction_spool_dir, segment_bytes=2000)) as spool:
            for number in range(first, first + 100):
                spool.append([record(number)])

    with ThreadPoolExecutor(6) as pool:
        writing = [pool.submit(write, first) for first in (0, 100, 200)]
        landings = [pool.submit(land, settings) for _ in range(3)]
        for future in (*writing, *landings):
            future.result()
    land(settings)
    assert times_landed(settings) == requests(range(300))
    assert not segments_of(settings.prediction_spool_dir)


def test_a_file_that_is_finished_while_it_is_read_is_kept_for_the_next_run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(settings.prediction_spool_dir)
    spool.append([record(1)])
    lines = Segment.lines

    def and_then_more(self: Segment) -> Iterator[bytes]:
        yield from lines(self)
        spool.append([record(2)])
        spool.close()

    with monkeypatch.context() as patched:
        patched.setattr(Segment, "lines", and_then_more)
        assert land(settings).files == 0
    assert land(settings).rows == 1
    assert times_landed(settings) == requests(range(1, 3))
