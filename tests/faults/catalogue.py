"""Kinds of broken data: what each does to a day's delivery, and the expectation that must catch it.

Belongs here: the faults, as functions of what the source would have delivered. Does not belong here: running
them (`test_faults`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

Damage = Callable[[pd.DataFrame], pd.DataFrame]
CONTRACT = "source contract"


@dataclass(frozen=True)
class Fault:
    """One kind of broken data."""

    feed: str
    """The feed, and the clean table, that it breaks."""
    damage: Damage
    caught_by: str
    """The expectation (its type and what it is about), or `CONTRACT`."""
    says: str
    """Words that the message must have, for whoever must mend it."""
    retyped: tuple[str, ...] = ()
    """Columns that arrive as text."""


def _set(**changes: Callable[[pd.DataFrame], object]) -> Damage:
    return lambda rows: rows.assign(**changes)


def _some(rows: pd.DataFrame, share: float) -> pd.Series:
    """Every n-th row, so that about `share` of them are chosen."""
    return pd.Series([n % round(1 / share) == 0 for n in range(len(rows))], index=rows.index)


def _moved(column: str, **by: float) -> Damage:
    return lambda rows: rows.assign(**{column: rows[column] + pd.Timedelta(**by)})


def _cut(column: str, hour: int) -> Damage:
    return lambda rows: rows[rows[column].dt.hour < hour]


def _without_hour(column: str, *hours: int) -> Damage:
    return lambda rows: rows[~rows[column].dt.hour.isin(hours)]


def _again(rows: pd.DataFrame, copy: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([rows, copy.assign(_source_offset=copy["_source_offset"] + "-again")])


def _renumbered(rows: pd.DataFrame, by: int) -> pd.DataFrame:
    """`rows` as other flights: another number, and the id that goes with it."""
    number = rows["flight_number"] + by
    parts = rows["flight_id"].str.extract(r"^(\d+)-(..)\d+-(.*)$")
    return rows.assign(
        flight_number=number, flight_id=parts[0] + "-" + parts[1] + number.astype(str) + "-" + parts[2]
    )


def _new_keys(rows: pd.DataFrame) -> pd.DataFrame:
    """Some rows once more, under an id of its own."""
    copy = rows[_some(rows, 0.1)]
    day = copy["flight_id"].str.slice(0, 8).astype(int) + 1
    return _again(rows, copy.assign(flight_id=day.astype(str) + copy["flight_id"].str.slice(8)))


def _doubled(rows: pd.DataFrame) -> pd.DataFrame:
    return _again(rows, _renumbered(rows, 10_000).assign(flight_number=rows["flight_number"]))


def _hour_twice(rows: pd.DataFrame) -> pd.DataFrame:
    """The flights of one hour delivered again, under the ids of the next day."""
    hour = rows[rows["published_at"].dt.hour == 15]
    day = hour["flight_id"].str.slice(0, 8).astype(int) + 1
    return _again(rows, hour.assign(flight_id=day.astype(str) + hour["flight_id"].str.slice(8)))


def _mojibake(column: str, share: float) -> Damage:
    """Text that was read in the wrong encoding."""

    def damage(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(
            **{column: rows[column].mask(_some(rows, share), rows[column].str.slice(0, 2) + "é")}
        )

    return damage


def _masked(column: str, share: float, value: object) -> Damage:
    return lambda rows: rows.assign(**{column: rows[column].mask(_some(rows, share), value)})


def _celsius(column: str) -> Damage:
    return lambda rows: rows.assign(**{column: (rows[column] - 32) / 1.8})


def _swapped(one: str, other: str) -> Damage:
    return lambda rows: rows.assign(**{one: rows[other], other: rows[one]})


def _shuffled(column: str) -> Damage:
    return lambda rows: rows.assign(**{column: rows[column].sample(frac=1, random_state=1).to_numpy()})


def _without(column: str, value: str) -> Damage:
    return lambda rows: rows[rows[column] != value]


UNIQUE = "expect_key_to_be_unique"
BETWEEN = "expect_column_values_to_be_between"
NOT_NULL = "expect_column_values_to_not_be_null"
IN_SET = "expect_column_values_to_be_in_set"
REGEX = "expect_column_values_to_match_regex"
ROWS = "expect_rows_to_satisfy"
USUAL = "expect_distribution_to_be_usual"
VARY = "expect_values_to_vary"
COMPLETE = "expect_periods_to_be_complete"
VOLUME = "expect_volume_to_be_usual"
FRESH = "expect_newest_row_to_be_recent"
KNOWN = "expect_references_to_exist"

FAULTS: dict[str, Fault] = {
    # The delivery's shape: the source's contract refuses it before anything lands.
    "dropped column": Fault(
        "flights", lambda rows: rows.drop(columns="carrier"), CONTRACT, "no column 'carrier'"
    ),
    "renamed column": Fault(
        "weather",
        lambda rows: rows.rename(columns={"visibility_miles": "visibility"}),
        CONTRACT,
        "'visibility'",
    ),
    "mixed types": Fault(
        "movements",
        _set(delay_minutes=lambda rows: rows["delay_minutes"].astype(str)),
        CONTRACT,
        "column 'delay_minutes' of type string",
        retyped=("delay_minutes",),
    ),
    "nulls in a required column": Fault("flights", _masked("dest", 0.05, None), CONTRACT, "nulls in 'dest'"),
    # Units.
    "minutes became seconds": Fault(
        "movements", _set(delay_minutes=lambda rows: rows["delay_minutes"] * 60), BETWEEN, "delay_minutes"
    ),
    "minutes became hours": Fault(
        "movements", _set(delay_minutes=lambda rows: rows["delay_minutes"] / 60), ROWS, "whole minutes"
    ),
    "miles became kilometres": Fault(
        "flights", _set(distance_miles=lambda rows: rows["distance_miles"] * 1.609), ROWS, "500 mph"
    ),
    "Fahrenheit became Celsius": Fault(
        "weather", _celsius("temperature_f"), ROWS, "humidity does not follow"
    ),
    "mph became km/h": Fault(
        "weather", _set(wind_speed_mph=lambda rows: rows["wind_speed_mph"] * 1.609), ROWS, "whole knots"
    ),
    "visibility in kilometres": Fault(
        "weather",
        _set(visibility_miles=lambda rows: rows["visibility_miles"] * 1.609),
        BETWEEN,
        "statute miles",
    ),
    # Time.
    "departures in the wrong zone": Fault(
        "flights", _moved("scheduled_departure", hours=-5), ROWS, "a time zone is wrong"
    ),
    "arrivals in the origin's zone": Fault(
        "flights",
        _set(scheduled_arrival=lambda rows: rows["scheduled_arrival_local"].dt.tz_localize("UTC")),
        ROWS,
        "4 to 10 hours behind UTC",
    ),
    "movements shifted by an hour": Fault(
        "movements", _moved("occurred_at", hours=-1), ROWS, "schedule plus its delay"
    ),
    "weather shifted into the past": Fault(
        "weather", _moved("reported_at", hours=-8), COMPLETE, "part of a day is missing"
    ),
    "dates a year ahead": Fault("flights", _moved("scheduled_departure", days=364), ROWS, "a date is wrong"),
    "negative durations": Fault(
        "flights", _swapped("scheduled_departure", "scheduled_arrival"), BETWEEN, "scheduled_minutes"
    ),
    "times rounded to the hour": Fault(
        "flights",
        _set(
            scheduled_departure=lambda rows: rows["scheduled_departure"].dt.floor("h"),
            scheduled_departure_local=lambda rows: rows["scheduled_departure_local"].dt.floor("h"),
            published_at=lambda rows: rows["published_at"].dt.floor("h"),
        ),
        USUAL,
        "times were rounded",
    ),
    # Volume: too little, too old, twice.
    "truncated day": Fault("flights", _cut("published_at", 17), FRESH, "stale, cut off or shifted"),
    "stale feed": Fault("movements", _cut("occurred_at", 6), FRESH, "stale, cut off or shifted"),
    "missing hour": Fault("flights", _without_hour("published_at", 15), COMPLETE, "part of a day is missing"),
    "truncated register": Fault("planes", lambda rows: rows.head(1000), VOLUME, "far fewer or more rows"),
    "empty delivery": Fault("weather", lambda rows: rows.head(0), COMPLETE, "a day has no data at all"),
    "volume doubled": Fault("flights", _doubled, VOLUME, "came twice"),
    "duplicated hour": Fault("flights", _hour_twice, UNIQUE, "the same flight came under two ids"),
    "duplicated rows with new keys": Fault(
        "flights", _new_keys, UNIQUE, "the same flight came under two ids"
    ),
    # Values.
    "silent nulls": Fault("weather", _masked("temperature_f", 0.3, None), NOT_NULL, "a sensor or a column"),
    "sentinel values": Fault("weather", _masked("dew_point_f", 0.1, -999.0), BETWEEN, "dew_point_f"),
    "impossible wind": Fault("weather", _masked("wind_speed_mph", 0.1, 1048.36), BETWEEN, "wind_speed_mph"),
    "constant column": Fault("weather", _set(temperature_f=lambda _: 51.08), VARY, "a sensor is stuck"),
    "all-zero column": Fault("movements", _set(delay_minutes=lambda _: 0.0), VARY, "different delays"),
    "sign flipped": Fault(
        "movements", _set(delay_minutes=lambda rows: -rows["delay_minutes"]), ROWS, "schedule plus its delay"
    ),
    "rounded values": Fault(
        "weather", _set(wind_speed_mph=lambda rows: rows["wind_speed_mph"].round()), ROWS, "or rounded"
    ),
    "swapped origin and destination": Fault(
        "flights", _swapped("origin", "dest"), IN_SET, "columns are swapped"
    ),
    "swapped temperature and dew point": Fault(
        "weather", _swapped("temperature_f", "dew_point_f"), ROWS, "never colder than its dew point"
    ),
    "column out of step with its rows": Fault(
        "movements", _shuffled("carrier"), ROWS, "rows or columns are mixed up"
    ),
    "encoding damage": Fault("flights", _mojibake("dest", 0.02), REGEX, "bytes may be damaged"),
    "encoding damage in names": Fault("planes", _mojibake("manufacturer", 0.02), REGEX, "plain ASCII"),
    "new category": Fault("flights", _masked("carrier", 0.02, "ZZ"), IN_SET, "a new carrier"),
    "padded and recased categories": Fault(
        "movements", _set(kind=lambda rows: rows["kind"].str.title() + " "), IN_SET, "departures and landings"
    ),
    "truncated identifiers": Fault(
        "movements",
        _set(flight_id=lambda rows: rows["flight_id"].str.replace(r"-([0-9A-Z]{2})\d", r"-\1", regex=True)),
        KNOWN,
        "no schedule has",
    ),
    "orphan planes": Fault(
        "flights",
        _set(tail_number=lambda rows: rows["tail_number"].str.replace("N", "M", n=1)),
        KNOWN,
        "registrations or register changed",
    ),
    "one airport missing": Fault("flights", _without("origin", "LGA"), USUAL, "an airport is missing"),
    "one carrier missing": Fault("flights", _without("carrier", "B6"), USUAL, "a carrier is missing"),
    "one station missing": Fault("weather", _without("origin", "JFK"), USUAL, "a weather station is missing"),
    "landings missing": Fault("movements", _without("kind", "landing"), USUAL, "landings are missing"),
}
