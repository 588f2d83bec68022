"""The replay: whole weeks away, the same records for the same interval, and damage said plainly."""

from __future__ import annotations

import shutil
import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from airloop.errors import SourceError
from airloop.intervals import Interval, day_interval
from airloop.settings import Settings
from airloop.sources.calendar_replay import source_date
from airloop.sources.contract import check_contract
from airloop.sources.nycflights import FIRST_DATE, NycFlightsReplay, _package_folder
from airloop.sources.nycflights_contract import FEEDS

BY_NAME = {feed.name: feed for feed in FEEDS}
MARCH = Interval(datetime(2013, 3, 5, tzinfo=UTC), datetime(2013, 3, 8, tzinfo=UTC))


@pytest.fixture(scope="module")
def replay() -> NycFlightsReplay:
    return NycFlightsReplay(Settings(), {})


@pytest.fixture
def copy_of_files(tmp_path: Path) -> Path:
    return Path(shutil.copytree(_package_folder(), tmp_path / "data"))


def _replay_of(folder: Path) -> NycFlightsReplay:
    return NycFlightsReplay(Settings(nycflights_dir=folder), {})


def _read(replay: NycFlightsReplay, name: str, interval: Interval) -> pa.Table:
    return pa.concat_tables(piece.records for piece in replay.read(BY_NAME[name], interval))


@pytest.mark.parametrize("day", [date(2013, 1, 1), date(2013, 12, 30), date(2026, 11, 23), date(2012, 2, 29)])
def test_a_replayed_day_shows_the_same_weekday_of_2013(day: date) -> None:
    shown = source_date(day, FIRST_DATE)
    assert shown.weekday() == day.weekday()
    assert FIRST_DATE <= shown <= date(2013, 12, 30)
    assert (day.year != 2013) or shown == day


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_feed_keeps_its_contract_and_repeats_itself(replay: NycFlightsReplay, name: str) -> None:
    once = check_contract(BY_NAME[name], _read(replay, name, MARCH))
    assert once.num_rows > 0
    assert once.equals(check_contract(BY_NAME[name], _read(replay, name, MARCH)))


@pytest.mark.parametrize("name", ["flights", "movements", "weather"])
def test_days_add_up_to_their_range_without_overlap(replay: NycFlightsReplay, name: str) -> None:
    feed = BY_NAME[name]
    whole = _read(replay, name, MARCH)
    days = [_read(replay, name, day_interval(date(2013, 3, 5) + timedelta(days=n))) for n in range(3)]
    assert sum(day.num_rows for day in days) == whole.num_rows
    keys = whole.select(list(feed.key)).to_pandas()
    assert not keys.duplicated().any()


def test_the_present_has_flights_that_look_like_their_day_of_2013(replay: NycFlightsReplay) -> None:
    now = _read(replay, "flights", day_interval(date(2026, 11, 18)))
    then = _read(replay, "flights", day_interval(source_date(date(2026, 11, 18), FIRST_DATE)))
    assert now.num_rows == then.num_rows > 500
    assert now["_source_offset"].equals(then["_source_offset"])


def test_volume_gives_each_flight_that_often_with_keys_of_its_own() -> None:
    once, thrice = (NycFlightsReplay(Settings(), {"volume": volume}) for volume in ("1", "3"))
    for name in ("flights", "movements", "planes"):
        wide = _read(thrice, name, MARCH)
        assert wide.num_rows == 3 * _read(once, name, MARCH).num_rows
        assert not wide.select(list(BY_NAME[name].key)).to_pandas().duplicated().any()
    assert _read(thrice, "weather", MARCH).equals(_read(once, "weather", MARCH))
    planes = set(_read(thrice, "planes", MARCH)["tail_number"].to_pylist())
    flown = set(_read(thrice, "flights", MARCH)["tail_number"].to_pylist())
    once_flown = set(_read(once, "flights", MARCH)["tail_number"].to_pylist())
    assert len(planes & flown) == 3 * len(planes & once_flown)


def test_an_unusable_volume_is_refused() -> None:
    for volume in ("many", "0", "1001"):
        with pytest.raises(SourceError, match=f"volume='{volume}'"):
            NycFlightsReplay(Settings(), {"volume": volume})


def test_a_landing_is_its_schedule_plus_its_delay_across_time_zones(replay: NycFlightsReplay) -> None:
    flights = _read(replay, "flights", Interval(MARCH.start - timedelta(days=2), MARCH.end)).to_pandas()
    landings = _read(replay, "movements", MARCH).to_pandas().query("kind == 'landing'")
    joined = landings.merge(
        flights[["flight_id", "scheduled_arrival", "scheduled_departure"]], on="flight_id"
    )
    assert len(joined) > 1000
    late = (joined["occurred_at"] - joined["scheduled_arrival"]).dt.total_seconds() / 60
    assert (late == joined["delay_minutes"]).all()
    hours = (joined["scheduled_arrival"] - joined["scheduled_departure"]).dt.total_seconds() / 3600
    assert hours.between(0.5, 13).all()


def test_weather_is_known_51_minutes_past_its_hour(replay: NycFlightsReplay) -> None:
    weather = _read(replay, "weather", MARCH)
    assert set(pc.minute(weather["reported_at"]).to_pylist()) == {51}


def test_a_missing_file_is_named(copy_of_files: Path) -> None:
    (copy_of_files / "weather.csv").unlink()
    with pytest.raises(SourceError, match=r"weather\.csv.*no such file.*restore"):
        _read(_replay_of(copy_of_files), "weather", MARCH)


def test_a_truncated_archive_is_refused(copy_of_files: Path) -> None:
    archive = copy_of_files / "flights.csv.zip"
    archive.write_bytes(archive.read_bytes()[:100_000])
    with pytest.raises(SourceError, match=r"flights\.csv\.zip to be whole"):
        _read(_replay_of(copy_of_files), "flights", MARCH)


def test_a_renamed_column_is_named(copy_of_files: Path) -> None:
    path = copy_of_files / "weather.csv"
    path.write_text(path.read_text().replace("visib", "visibility", 1))
    with pytest.raises(SourceError, match=r"visib.*renamed or dropped"):
        _read(_replay_of(copy_of_files), "weather", MARCH)


def test_a_retyped_column_shows_the_value(copy_of_files: Path) -> None:
    path = copy_of_files / "planes.csv"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace(",55,", ",fifty-five,")
    path.write_text("\n".join(lines))
    with pytest.raises(SourceError, match="fifty-five"):
        _read(_replay_of(copy_of_files), "planes", MARCH)


def test_a_file_of_a_header_alone_is_refused(copy_of_files: Path) -> None:
    path = copy_of_files / "flights.csv.zip"
    with zipfile.ZipFile(path) as archive:
        header = archive.read("flights.csv").split(b"\n", 1)[0]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flights.csv", header + b"\n")
    with pytest.raises(SourceError, match="a header alone"):
        _read(_replay_of(copy_of_files), "flights", MARCH)
