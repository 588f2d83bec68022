"""Real days run again: identical rows, two at once in peace, a corrected one down to its last feature."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyspark.sql import DataFrame, SparkSession

from airloop.connections import Connection
from airloop.dotted import load
from airloop.intervals import ONE_DAY, Interval
from airloop.lakehouse.catalog import open_catalog
from airloop.lakehouse.history import publications
from airloop.lakehouse.publish import publish
from airloop.references import Ingested, Published
from airloop.settings import REPOSITORY, Settings, environment_of
from airloop.sources.contract import SOURCE_OFFSET, SOURCE_TIME, Delivery
from airloop.sources.nycflights import NycFlightsReplay
from airloop.use_cases.spec import Feed, UseCase
from spark_jobs.audit import audit
from spark_jobs.clean import clean, raw_records
from spark_jobs.features import build_features, conform
from spark_jobs.history import clean_history
from spark_jobs.ingest import ingest
from spark_jobs.tables import CLEAN, FEATURES, RAW
from tests.streams.in_session import session_for

FIRST = datetime(2013, 4, 8, tzinfo=UTC)
HISTORY = Interval(FIRST, FIRST + 3 * ONE_DAY)
"""Published before the tests; a Monday to a Wednesday."""
NEW = tuple(Interval(FIRST + n * ONE_DAY, FIRST + (n + 1) * ONE_DAY) for n in (3, 4))
"""Two days after those, delivered but not published yet."""
CORRECTED = Interval(FIRST + ONE_DAY, FIRST + 2 * ONE_DAY)
LATER_BY = 45.0


class Redelivery:
    """The replay, but for one landing of the corrected day, delivered again as `LATER_BY` minutes later."""

    def __init__(self, settings: Settings, options: Mapping[str, str], connection: Connection | None) -> None:
        self._replay = NycFlightsReplay(settings, options, connection)

    def read(self, feed: Feed, interval: Interval) -> Iterator[Delivery]:
        for delivery in self._replay.read(feed, interval):
            records = delivery.records
            yield Delivery(_corrected(records) if feed.name == "movements" else records)


def _corrected(records: pa.Table) -> pa.Table:
    rows = records.to_pylist()
    row = rows[_place(rows)]
    row["delay_minutes"] += LATER_BY
    row["occurred_at"] += timedelta(minutes=LATER_BY)
    row[SOURCE_TIME] += timedelta(hours=6)
    row[SOURCE_OFFSET] += "@2"
    return pa.Table.from_pylist(rows, schema=records.schema)


def _place(rows: list[dict[str, Any]]) -> int:
    """Where a landing is that was on time, and still is on the same day when it is late."""
    morning = CORRECTED.start + timedelta(hours=12)
    return next(
        place
        for place, row in enumerate(rows)
        if row["kind"] == "landing"
        and row["tail_number"]
        and row["delay_minutes"] <= 0
        and morning < row["occurred_at"] < morning + timedelta(hours=3)
    )


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A state folder of its own: other tests publish the same tables."""
    state: Path = tmp_path_factory.mktemp("backfill")
    (state / "jars").symlink_to(REPOSITORY / ".airloop" / "jars")
    return Settings(state_dir=state, spark_driver_memory_mib=1024)


@pytest.fixture(scope="module")
def lake(spark: SparkSession, own: Settings, spec: UseCase) -> SparkSession:
    """`HISTORY` published with its features, and the raw records of `NEW`."""
    session = session_for(own)
    ingest(session, spec, Interval(HISTORY.start, NEW[-1].end), own)
    _publish(session, spec, HISTORY, own)
    build_features(session, spec, HISTORY)
    return session


def _publish(spark: SparkSession, spec: UseCase, interval: Interval, settings: Settings) -> Published:
    branch = clean(spark, spec, interval).branch
    return publish(spec, branch, interval, settings, audit(spark, spec, interval, branch, settings))


def _run(spark: SparkSession, spec: UseCase, day: Interval, settings: Settings) -> tuple[Ingested, Published]:
    """The features DAG's tasks, one after another."""
    ingested = ingest(spark, spec, day, settings)
    published = _publish(spark, spec, day, settings)
    build_features(spark, spec, day)
    return ingested, published


def _names(spec: UseCase, *layers: str) -> list[str]:
    names = {
        RAW: [feed.name for feed in spec.feeds],
        CLEAN: [table.name for table in spec.clean_tables],
        FEATURES: [table.name for table in spec.feature_tables],
    }
    return [f"{layer}.{name}" for layer in layers for name in names[layer]]


def _rows(settings: Settings, names: list[str]) -> dict[str, pa.Table]:
    """All published rows of each table, in an order that depends on nothing but them."""
    catalog = open_catalog(settings)
    found = {name: catalog.load_table(name).scan().to_arrow() for name in names}
    return {name: _sorted(rows) for name, rows in found.items()}


def _sorted(rows: pa.Table) -> pa.Table:
    # Whether texts are read as large ones depends on who wrote the file.
    fields = [
        pa.field(f.name, pa.string() if pa.types.is_large_string(f.type) else f.type) for f in rows.schema
    ]
    rows = rows.cast(pa.schema(fields))
    return rows.sort_by([(name, "ascending") for name in rows.column_names]).combine_chunks()


def _of_frame(frame: DataFrame, like: pa.Table) -> pa.Table:
    """The rows of `frame`, as `_rows` has those of a table."""
    return _sorted(frame.select(*like.column_names).toArrow().cast(like.schema))


def _days_that_differ(one: pa.Table, other: pa.Table, time: str) -> set[str]:
    """The UTC days on which the rows of one are not those of the other."""
    days = {f"{moment:%Y-%m-%d}" for rows in (one, other) for moment in rows[time].to_pylist()}
    return {day for day in days if not _of_day(one, time, day).equals(_of_day(other, time, day))}


def _of_day(rows: pa.Table, time: str, day: str) -> pa.Table:
    return rows.filter(pc.equal(pc.strftime(rows[time], "%Y-%m-%d"), day)).combine_chunks()


def _started(day: Interval, settings: Settings) -> subprocess.Popen[str]:
    """A process that publishes `day` by the command lines that Airflow runs."""
    span = f"--use-case flight_delay --start {day.start:%Y-%m-%d} --end {day.end:%Y-%m-%d}"
    branch, scratch = f"audit_{day.key}", settings.state_dir / day.key
    lines = [
        f"{sys.executable} -m spark_jobs.clean {span}",
        f"{sys.executable} -m spark_jobs.audit {span} --branch {branch} --result {scratch}",
        f'{sys.executable} -m airloop.lakehouse.publish {span} --branch {branch} --audit "$(cat {scratch})"',
    ]
    return subprocess.Popen(
        ["bash", "-c", " && ".join(lines)],
        env={**os.environ, **environment_of(settings), "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_same_day_twice_gives_identical_rows(lake: SparkSession, spec: UseCase, own: Settings) -> None:
    day = Interval(FIRST + ONE_DAY, FIRST + 2 * ONE_DAY)
    names = _names(spec, RAW, CLEAN, FEATURES)
    before = _rows(own, names)
    assert min(rows.num_rows for rows in before.values()) > 100
    ingested, published = _run(lake, spec, day, own)
    assert {snapshot.rows for snapshot in ingested.snapshots} == {0}
    assert (ingested.withdrawn, ingested.quarantined, published.changed_days) == (0, 0, ())
    after = _rows(own, names)
    assert [name for name in names if not after[name].equals(before[name])] == []


@pytest.mark.faults
def test_two_days_published_at_once_by_processes_of_their_own_both_arrive(
    lake: SparkSession, spec: UseCase, own: Settings
) -> None:
    names = _names(spec, CLEAN)
    before = _rows(own, names)
    processes = [_started(day, own) for day in NEW]
    outputs = [process.communicate(timeout=800)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]
    after = _rows(own, names)
    expected = load(spec.transform).clean(raw_records(lake, spec, Interval(NEW[0].start, NEW[1].end)))
    for table in spec.clean_tables:
        name = f"{CLEAN}.{table.name}"
        new = _of_frame(expected[table.name], before[name])
        if table.event_time is not None:
            new = _sorted(pa.concat_tables([before[name], new]))
        assert after[name].equals(new), name
    published = publications(open_catalog(own).load_table(f"{CLEAN}.flights"))
    assert {item.interval for item in published[:2]} == set(NEW)


def test_a_corrected_day_is_published_again_and_reaches_the_features_that_look_back_on_it(
    lake: SparkSession, spec: UseCase, own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = _names(spec, RAW, CLEAN, FEATURES)
    before = _rows(own, names)
    monkeypatch.setattr("spark_jobs.ingest.adapter_class", lambda name: Redelivery)
    ingested, published = _run(lake, spec, CORRECTED, own)
    assert (sum(snapshot.rows for snapshot in ingested.snapshots), ingested.withdrawn) == (1, 1)
    day = f"{CORRECTED.start:%Y-%m-%d}"
    assert published.changed_days == (day,)
    after = _rows(own, names)

    changed = {name for name in names if not after[name].equals(before[name])}
    assert {name for name in changed if not name.startswith(FEATURES)} == {"raw.movements", "clean.movements"}
    old, new = (_lines(rows["clean.movements"]) for rows in (before, after))
    (was,), (now,) = old - new, new - old
    assert dict(now)["delay_minutes"] == dict(was)["delay_minutes"] + LATER_BY
    assert dict(now)["flight_id"] == dict(was)["flight_id"]

    days = {
        name: _days_that_differ(before[name], after[name], "event_timestamp")
        for name in changed
        if name.startswith(FEATURES)
    }
    later = {f"{CORRECTED.start + n * ONE_DAY:%Y-%m-%d}" for n in range(2)}
    assert days[f"{FEATURES}.tail_history"] == {day}
    assert days[f"{FEATURES}.carrier_hourly"] == later, "a rate of seven days reaches to the last day built"
    assert later >= days[f"{FEATURES}.route_history"] >= {day}
    departures = {"origin_hourly", "origin_carrier_hourly", "origin_weather"}
    assert not days.keys() & {f"{FEATURES}.{name}" for name in departures}, "a landing does not concern them"

    whole = load(spec.transform).features(clean_history(lake, spec, HISTORY), HISTORY)
    for table in spec.feature_tables:
        name = f"{FEATURES}.{table.name}"
        anew = _of_frame(conform(whole[table.name], table, spec), after[name])
        assert after[name].equals(anew), f"{name} is not what all days computed at once would be"


def _lines(rows: pa.Table) -> set[tuple[tuple[str, Any], ...]]:
    return {tuple(row.items()) for row in rows.to_pylist()}
