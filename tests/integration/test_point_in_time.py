"""Training sees what was known: features beside brute force, at boundaries, and beside what is online.

Brute force is plain Python over the source's own records, a row at a time; it shares no code with Spark,
Feast or the transform.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from airloop.intervals import ONE_DAY, Interval
from airloop.lakehouse.catalog import open_catalog, read_snapshot
from airloop.prediction_request import features_in_force, parse_request
from airloop.references import TrainingSet
from airloop.settings import Settings
from airloop.sources.nycflights import NycFlightsReplay
from airloop.use_cases.spec import UseCase
from feature_repo.materialise import materialise, span_to_write
from feature_repo.online import open_online_store
from feature_repo.store import open_store
from feature_repo.views import push_source_of
from serving.gateway.online_features import OnlineFeatures
from spark_jobs.push import newest_values, push
from spark_jobs.training_set import join_features
from tests.integration.conftest import WEEK

HOUR = 3600
SAMPLE = 400
DAY = Interval(WEEK.start + 4 * ONE_DAY, WEEK.start + 5 * ONE_DAY)


class Truth:
    """What was known of the week at a moment, from the source's records."""

    def __init__(self, spec: UseCase, settings: Settings) -> None:
        def records(feed: str) -> list[dict[str, Any]]:
            source = NycFlightsReplay(settings, {})
            return [row for part in source.read(spec.feed(feed), WEEK) for row in part.records.to_pylist()]

        self.flights = {row["flight_id"]: row for row in records("flights")}
        self.planes = {row["tail_number"]: row for row in records("planes")}
        self.weather = records("weather")
        self.moves = [
            (int(row["occurred_at"].timestamp()), row["kind"], row["flight_id"], row)
            for row in records("movements")
        ]
        self.due = defaultdict(list)
        for row in self.flights.values():
            self.due[row["tail_number"]].append(row)
        self.by_tail = defaultdict(list)
        for move in self.moves:
            self.by_tail[move[3]["tail_number"]].append(move)
        self.left = {move[2]: move[0] for move in self.moves if move[1] == "departure"}

    def at(self, request: dict[str, Any], moment: int) -> dict[str, float | None]:
        """Every stored feature of a request at `moment`, seconds since the epoch."""
        hour = moment // HOUR * HOUR
        origin, dest, carrier = request["origin"], request["dest"], request["carrier"]
        found: dict[str, float | None] = {}

        def past(kind: str, hours: int, end: int = hour, **where: str) -> list[float]:
            return [
                row["delay_minutes"]
                for at, of_kind, _, row in self.moves
                if of_kind == kind
                and end - hours * HOUR <= at < end
                and all(row[name] == value for name, value in where.items())
            ]

        out = {hours: past("departure", hours, origin=origin) for hours in (1, 3, 6, 24)}
        found["origin_departures_3h"] = float(len(out[3]))
        for hours in (1, 3, 6, 24):
            found[f"origin_mean_departure_delay_{hours}h"] = _mean(out[hours])
        for hours in (3, 24):
            found[f"origin_late_share_{hours}h"] = _late(out[hours])
        every = past("departure", 1)
        found["network_mean_departure_delay_1h"] = _mean(every)
        found["network_late_share_1h"] = _late(every)
        for name, shift in (("_before", -1), ("", 0), ("_after", 1)):
            found[f"origin_departures_planned{name}"] = float(
                sum(
                    row["origin"] == origin
                    and row["published_at"].timestamp() < hour
                    and row["scheduled_departure"].timestamp() // HOUR * HOUR == hour + (2 + shift) * HOUR
                    for row in self.flights.values()
                )
            )
        for name, where in (("origin", {}), ("origin_carrier", {"carrier": carrier})):
            waits = [
                (hour - row["scheduled_departure"].timestamp()) / 60
                for row in self.flights.values()
                if row["origin"] == origin
                and all(row[key] == value for key, value in where.items())
                and hour - 3 * HOUR < row["scheduled_departure"].timestamp() <= hour
                and self.left.get(row["flight_id"], math.inf) >= hour
            ]
            found[f"{name}_overdue_flights"] = float(len(waits))
            found[f"{name}_overdue_minutes"] = sum(waits)
        own = past("departure", 3, origin=origin, carrier=carrier)
        found["origin_carrier_mean_departure_delay_3h"] = _mean(own)
        if not past("departure", 7 * 24, origin=origin, carrier=carrier):
            found |= dict.fromkeys(("origin_carrier_overdue_flights", "origin_carrier_overdue_minutes"), None)
        there = {hours: past("landing", hours, dest=dest) for hours in (3, 24)}
        known = past("landing", 7 * 24, dest=dest)
        found["dest_landings_3h"] = float(len(there[3])) if known else None
        for hours in (3, 24):
            found[f"dest_mean_arrival_delay_{hours}h"] = _mean(there[hours])
            found[f"dest_late_share_{hours}h"] = _late(there[hours])
        grid = moment // (6 * HOUR) * 6 * HOUR
        found["carrier_delay_rate_7d"] = _late(past("landing", 7 * 24, grid, carrier=carrier))
        found["carrier_mean_arrival_delay_6h"] = _mean(past("landing", 6, grid, carrier=carrier))
        # A row of a route is there from each hour in which one of its flights landed.
        stamps = [
            _known(at)
            for at, kind, _, row in self.moves
            if kind == "landing" and (row["origin"], row["dest"]) == (origin, dest) and at < hour
        ]
        last = max(stamps, default=None)
        route = past("landing", 7 * 24, last, origin=origin, dest=dest) if last else []
        found["route_delay_rate_7d"], found["route_mean_arrival_delay_7d"] = _late(route), _mean(route)
        found |= self._weather(origin, moment) | self._tail(request.get("tail_number"), moment)
        return found

    def _weather(self, origin: str, moment: int) -> dict[str, float | None]:
        by_hour: dict[int, dict[str, Any]] = {}
        for row in sorted(self.weather, key=lambda row: row["reported_at"]):
            if row["origin"] == origin:
                by_hour[_known(row["reported_at"].timestamp())] = row
        hours = [hour for hour in by_hour if moment - 6 * HOUR <= hour <= moment]
        changes = {
            "temperature_f": "temperature_change_3h_f",
            "wind_speed_mph": "wind_speed_change_3h_mph",
            "pressure_millibars": "pressure_change_3h_millibars",
            "visibility_miles": "visibility_change_3h_miles",
        }
        names = [name for name in self.weather[0] if isinstance(self.weather[0][name], float | None)]
        if not hours:
            return dict.fromkeys([*names, *changes.values()])
        now, before = by_hour[max(hours)], by_hour.get(max(hours) - 3 * HOUR, {})
        found = {name: now[name] for name in names}
        for name, change in changes.items():
            values = now[name], before.get(name)
            found[change] = None if None in values else values[0] - values[1]
        return found

    def _tail(self, tail: str | None, moment: int) -> dict[str, float | None]:
        def stamped(seconds: float) -> int:
            return int(-(-seconds // HOUR) * HOUR)

        legs = (
            [m for m in self.by_tail[tail] if moment - 72 * HOUR <= stamped(m[0]) <= moment] if tail else []
        )
        found: dict[str, float | None] = {}
        if legs:
            at = max(m[0] for m in legs)
            _, kind, flight_id, row = min(m for m in legs if m[0] == at)
            flight, plane = self.flights.get(flight_id), self.planes.get(tail, {})
            minutes = None
            if flight:
                minutes = (flight["scheduled_arrival"] - flight["scheduled_departure"]).total_seconds() / 60
            found = {
                "tail_last_delay_minutes": row["delay_minutes"],
                "tail_last_event_at": at,
                "tail_last_was_landing": float(kind == "landing"),
                "tail_last_scheduled_departure_at": flight and flight["scheduled_departure"].timestamp(),
                "tail_last_scheduled_minutes": minutes,
                "tail_seats": plane.get("seats"),
                "tail_year_built": plane.get("year_built"),
            }
        due = [
            row
            for row in (self.due[tail] if tail else [])
            if moment - 72 * HOUR <= -(-row["scheduled_departure"].timestamp() // HOUR) * HOUR <= moment
        ]
        if due:
            row = max(due, key=lambda row: row["scheduled_departure"])
            found["tail_due_departure_at"] = row["scheduled_departure"].timestamp()
            found["tail_due_minutes"] = (
                row["scheduled_arrival"] - row["scheduled_departure"]
            ).total_seconds() / 60
        return found


def _known(seconds: float) -> int:
    """When an event is known: as its hour ends."""
    return int(seconds // HOUR + 1) * HOUR


def _same(want: float | None, got: float | None) -> bool:
    if want is None or got is None:
        return want is got
    return math.isclose(want, got, rel_tol=1e-9, abs_tol=1e-9)


def _mean(delays: list[float]) -> float | None:
    return sum(delays) / len(delays) if delays else None


def _late(delays: list[float]) -> float | None:
    return sum(delay > 15 for delay in delays) / len(delays) if delays else None


def _plain(value: Any) -> float | None:
    missing = value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value))
    return None if missing else float(value)


def _examples(trained_on: TrainingSet, settings: Settings, columns: list[str]) -> pd.DataFrame:
    table = open_catalog(settings).load_table(trained_on.table)
    frame: pd.DataFrame = read_snapshot(
        table, trained_on.snapshot_id, [*columns, "request", "prediction_time"]
    ).to_pandas()
    return frame


def test_features_are_those_of_brute_force(
    trained_on: TrainingSet, spark: SparkSession, spec: UseCase, settings: Settings
) -> None:
    """Random examples of the training set: each stored feature as plain Python finds it at that moment."""
    sample = _examples(trained_on, settings, []).sample(SAMPLE, random_state=7)
    asked = [json.loads(text) for text in sample["request"]]
    entities = [
        {
            **{name: request.get(name) or "" for name in spec.entities},
            "event_timestamp": moment.tz_convert("UTC").tz_localize(None),
            "number": number,
            "scheduled_departure": pd.Timestamp(request["scheduled_departure"])
            .tz_convert("UTC")
            .tz_localize(None),
            "scheduled_departure_local": pd.Timestamp(request["scheduled_departure"]).tz_localize(None),
        }
        for number, (request, moment) in enumerate(zip(asked, sample["prediction_time"], strict=True))
    ]
    joined = join_features(open_store(settings), spec, spark.createDataFrame(pd.DataFrame(entities)))
    rows = joined.toPandas().sort_values("number").to_dict("records")
    assert len(rows) == SAMPLE
    truth, compared, wrong = Truth(spec, settings), 0, []
    present: dict[str, int] = defaultdict(int)
    for row, request, moment in zip(rows, asked, sample["prediction_time"], strict=True):
        expected = truth.at(request, int(moment.timestamp()))
        for name in spec.features:
            compared += 1
            want, got = _plain(expected.get(name)), _plain(row[name])
            present[name] += want is not None
            if not _same(want, got):
                wrong.append((name, request, moment, want, got))
    print(f"point in time: {SAMPLE} rows, {compared} values compared, {len(wrong)} mismatches")
    assert wrong == []
    # Nothing is proved of a feature that is never there.
    assert [name for name in spec.features if present[name] < SAMPLE / 20] == []


def test_a_value_counts_from_its_moment_to_the_last_of_its_time_to_live(
    materialised: None, spark: SparkSession, spec: UseCase, settings: Settings
) -> None:
    table = spec.feature_table("tail_schedule")
    rows = (
        spark.table("features.tail_schedule")
        .groupBy("tail_number")
        .agg(F.max("event_timestamp").alias("last"), F.min("event_timestamp").alias("first"))
        .limit(40)
        .toPandas()
    )
    moment = pd.Timedelta(microseconds=1)
    # Before a tail's first row nothing is known; after its last, the value until the time to live ends.
    cases = [
        (row.tail_number, at, known)
        for row in rows.itertuples()
        for at, known in (
            (row.first - moment, False),
            (row.first, True),
            (row.last, True),
            (row.last + table.time_to_live, True),
            (row.last + table.time_to_live + moment, False),
        )
    ]
    entities = pd.DataFrame(
        [(tail, at, n) for n, (tail, at, _) in enumerate(cases)],
        columns=["tail_number", "event_timestamp", "number"],
    )
    found = (
        open_store(settings)
        .get_historical_features(
            entity_df=spark.createDataFrame(entities), features=["tail_schedule:tail_due_minutes"]
        )
        .to_spark_df()
        .toPandas()
        .sort_values("number")
    )
    assert len(cases) == 200
    assert found["tail_due_minutes"].notna().tolist() == [known for *_, known in cases]


def _hours(day: Interval) -> Iterator[datetime]:
    hour = day.start
    while hour < day.end:
        yield hour
        hour += timedelta(hours=1)


def test_what_is_pushed_at_an_hour_is_what_the_feature_tables_say_of_it(
    materialised: None, spark: SparkSession, spec: UseCase
) -> None:
    """The push's own computation, at some hours of a day, beside the day's batch."""
    for hour in (DAY.start, DAY.start + timedelta(hours=13), DAY.start + timedelta(hours=22)):
        for name, frame in newest_values(spark, spec, Interval(DAY.start - ONE_DAY, hour)).items():
            batch = _newest(spark, spec, name, hour, DAY.start - ONE_DAY)
            columns = batch.columns
            assert frame.select(*columns).exceptAll(batch).isEmpty(), (name, hour)
            assert batch.exceptAll(frame.select(*columns)).isEmpty(), (name, hour)
            assert not batch.isEmpty(), (name, hour)


def _newest(spark: SparkSession, spec: UseCase, name: str, hour: datetime, start: datetime) -> Any:
    table = spec.feature_table(name)
    rows = spark.table(f"features.{name}").where(
        (F.col("event_timestamp") <= F.lit(hour.isoformat()).cast("timestamp"))
        & (F.col("event_timestamp") >= F.lit(start.isoformat()).cast("timestamp"))
    )
    last = rows.groupBy(*table.entities).agg(F.max("event_timestamp").alias("event_timestamp"))
    return rows.join(last, [*table.entities, "event_timestamp"])


@pytest.fixture
def fresh_online(settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """The same offline tables with an empty online store and registry of their own."""
    aside = tmp_path / "feast"
    settings.feast_dir.rename(aside)
    yield settings
    shutil.rmtree(settings.feast_dir, ignore_errors=True)
    aside.rename(settings.feast_dir)


def test_online_and_offline_agree_over_a_day_of_requests(
    materialised: None, trained_on: TrainingSet, spark: SparkSession, spec: UseCase, fresh_online: Settings
) -> None:
    """A day replayed: after the night's materialisation, each hour's values are pushed as the hour comes, and
    each request of that hour is answered from what is online then; beside it, the training set's features."""
    settings = fresh_online
    store = open_store(settings)
    materialise(store, spec, Interval(WEEK.start, DAY.start), settings)
    rows = _examples(trained_on, settings, [item.name for item in spec.inputs if item.request_field is None])
    rows = rows[(rows["prediction_time"] >= DAY.start) & (rows["prediction_time"] < DAY.end)]
    pushed = {
        table.name: spark.table(f"features.{table.name}")
        .where(
            (F.col("event_timestamp") >= F.lit(DAY.start.isoformat()).cast("timestamp"))
            & (F.col("event_timestamp") < F.lit(DAY.end.isoformat()).cast("timestamp"))
        )
        .toPandas()
        .assign(event_timestamp=lambda frame: frame["event_timestamp"].dt.tz_localize("UTC"))
        for table in spec.feature_tables
    }
    online = OnlineFeatures(lambda: open_online_store(settings))
    names = [item.name for item in spec.inputs if item.request_field is None]
    compared, wrong = 0, []
    for hour in _hours(DAY):
        for name, frame in pushed.items():
            now = frame[frame["event_timestamp"] == hour]
            if len(now):
                store.push(push_source_of(spec.feature_table(name)), now)
        due = rows[(rows["prediction_time"] >= hour) & (rows["prediction_time"] < hour + timedelta(hours=1))]
        for row in due.to_dict("records"):
            request = parse_request(spec, row["request"])
            values = features_in_force(spec, request, online.read(spec, [request])[0])
            values |= online.on_demand(spec, request, values)
            for name in names:
                compared += 1
                want, got = _plain(row[name]), _plain(values[name])
                if name == "tail_last_event_at" and want == 0:
                    want = None
                if not _same(want, got):
                    wrong.append((name, row["request"], want, got))
    print(f"parity: {len(rows)} requests, {compared} values compared, {len(wrong)} mismatches")
    assert len(rows) > 700
    assert wrong == []


def test_a_push_comes_before_the_audit_and_gives_way_to_it(
    materialised: None, spark: SparkSession, spec: UseCase, fresh_online: Settings
) -> None:
    """An hour of a day of which only raw records are there yet is pushed; what the day's own
    materialisation says of the same moment replaces it, and an older day's does not."""
    store = open_store(fresh_online)
    until = DAY.end - timedelta(hours=2)
    first = push(spark, store, spec, until, fresh_online)
    assert set(first.rows) == {table.name for table in spec.feature_tables if table.pushed}
    ask = {"entity_rows": [{"origin": "JFK"}], "features": ["origin_hourly:origin_departures_3h"]}

    def value() -> float | None:
        found: float | None = store.get_online_features(**ask).to_dict()["origin_departures_3h"][0]
        return found

    def write(amount: float, at: datetime) -> None:
        names = spec.feature_table("origin_hourly").features
        frame = pd.DataFrame([{"origin": "JFK", "event_timestamp": at, **dict.fromkeys(names, amount)}])
        store.push("origin_hourly_push", frame)

    before = value()
    assert before is not None
    assert before > 0
    write(-1.0, until)
    assert value() == -1.0, "of the same moment, the later write counts"
    assert push(spark, store, spec, until, fresh_online) == first
    assert value() == before
    materialise(store, spec, Interval(WEEK.start, DAY.start), fresh_online)
    assert value() == before, "an older day does not replace a newer hour"


def test_materialising_a_day_reads_a_day(spec: UseCase) -> None:
    day = Interval(DAY.start, DAY.end)
    for table in spec.feature_tables:
        span = span_to_write(table, day)
        assert span.end == day.end
        assert span.start >= day.start
        assert span.end - span.start <= max(ONE_DAY, timedelta(0))
    year = Interval(DAY.end - 365 * ONE_DAY, DAY.end)
    assert max(span_to_write(t, year).end - span_to_write(t, year).start for t in spec.feature_tables) == (
        max(t.time_to_live for t in spec.feature_tables)
    )
