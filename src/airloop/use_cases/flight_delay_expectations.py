"""What flight_delay's clean tables must be like, before anything is made of them.

Belongs here: expectations as data, each with what its failure means. Does not belong here: how they are
judged (`spark_jobs.audit`), or the rest of the use case (`flight_delay`).

Bounds come from the data of 2013, all days of it and half years, with room to spare; the blizzard of 9
February (a fifth of the usual flights) and Thanksgiving pass. Where physics or the clock decides, they say
so.
Conditions are Spark SQL over a table's columns and those of the tables that it refers to.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from airloop.use_cases.spec import CleanTable, Expectation, ReferenceTo

ORIGINS: Final = ["EWR", "JFK", "LGA"]
CARRIERS: Final = [
    "9E",
    "AA",
    "AS",
    "B6",
    "DL",
    "EV",
    "F9",
    "FL",
    "HA",
    "MQ",
    "OO",
    "UA",
    "US",
    "VX",
    "WN",
    "YV",
]
FLIGHT_ID: Final = r"^\d{8}-[0-9A-Z]{2}\d+-[A-Z]{3}-[A-Z]{3}$"
KNOT_MPH: Final = 1.15078


def _expect(type: str, why: str, **arguments: object) -> Expectation:
    return Expectation(type=type, why=why, arguments=arguments)


def _schema(**columns: str) -> Expectation:
    return _expect("ExpectSchemaToMatch", "a column was dropped, added or changed its type", columns=columns)


def _complete(*columns: str) -> tuple[Expectation, ...]:
    return tuple(
        _expect("ExpectColumnValuesToNotBeNull", f"{column} is always known", column=column)
        for column in columns
    )


def _between(
    column: str, low: float | None, high: float | None, why: str, mostly: float = 1.0
) -> Expectation:
    return _expect(
        "ExpectColumnValuesToBeBetween", why, column=column, min_value=low, max_value=high, mostly=mostly
    )


def _in_set(column: str, values: list[str], why: str) -> Expectation:
    return _expect("ExpectColumnValuesToBeInSet", why, column=column, value_set=values)


def _matches(column: str, regex: str, why: str) -> Expectation:
    return _expect("ExpectColumnValuesToMatchRegex", why, column=column, regex=regex)


def _rows(condition: str, why: str, mostly: float = 1.0) -> Expectation:
    return _expect("ExpectRowsToSatisfy", why, condition=condition, mostly=mostly)


def _unique(why: str, *columns: str) -> Expectation:
    return _expect("ExpectKeyToBeUnique", why, columns=list(columns))


def _usual(expression: str, why: str, threshold: float = 0.25) -> Expectation:
    return _expect("ExpectDistributionToBeUsual", why, expression=expression, threshold=threshold)


def _varied(expression: str, distinct: int, why: str, share: float = 1.0) -> Expectation:
    return _expect("ExpectValuesToVary", why, expression=expression, distinct=distinct, share=share)


def _binned(column: str, *edges: float) -> str:
    """SQL for the number of edges that `column` has reached."""
    return " + ".join(f"int({column} >= {edge})" for edge in edges)


def _codes() -> tuple[Expectation, ...]:
    """What the codes of a flight look like, in every table that has them."""
    return (
        _in_set("origin", ORIGINS, "a flight from an airport that is not ours, or columns are swapped"),
        _in_set("carrier", CARRIERS, "a new carrier (if it is real, add it to the spec), or columns swapped"),
        _matches("dest", "^[A-Z]{3}$", "airports are three-letter IATA codes; bytes may be damaged"),
        _expect("ExpectColumnValueLengthsToEqual", "carriers have two characters", column="carrier", value=2),
        _matches("flight_id", FLIGHT_ID, "flight ids name day, flight, origin and destination"),
        _rows(
            "endswith(flight_id, concat('-', origin, '-', dest))",
            "the id names another route than the columns: columns are swapped or shifted",
        ),
        _matches("tail_number", "^[0-9A-Z]{4,7}$", "registrations are plain capitals and digits"),
        _usual("carrier", "a carrier is missing, or has far more flights than it had"),
        _usual("origin", "an airport is missing, or has far more flights than it had"),
        _varied("dest", 40, "on every day there are flights to at least 74 airports"),
        _varied("tail_number", 30, "on every day hundreds of planes fly", share=0.05),
    )


FLIGHTS: Final = CleanTable(
    name="flights",
    event_time="published_at",
    min_rows_per_day=300,
    usual_volume=(0.5, 1.5),
    hours=(0, *range(11, 24)),
    fresh_within=timedelta(hours=2),
    references=(
        ReferenceTo(
            column="tail_number",
            table="planes",
            key="tail_number",
            mostly=0.7,
            why="the register knows 82% of planes or more on every day: registrations or register changed",
        ),
    ),
    expectations=(
        _schema(
            flight_id="string",
            carrier="string",
            tail_number="string",
            origin="string",
            dest="string",
            flight_number="bigint",
            published_at="timestamp",
            scheduled_departure="timestamp",
            scheduled_departure_local="timestamp_ntz",
            scheduled_arrival="timestamp",
            scheduled_arrival_local="timestamp_ntz",
            distance_miles="double",
            scheduled_minutes="double",
        ),
        *_complete(
            *("flight_id", "carrier", "origin", "dest", "flight_number", "published_at"),
            *("scheduled_departure", "scheduled_departure_local", "scheduled_arrival"),
            *("scheduled_arrival_local", "distance_miles", "scheduled_minutes"),
        ),
        _expect(
            "ExpectColumnValuesToNotBeNull",
            "planes are assigned to 72% of flights or more on every day",
            column="tail_number",
            mostly=0.6,
        ),
        _unique("a flight was delivered twice", "flight_id"),
        _unique(
            "the same flight came under two ids",
            *("carrier", "flight_number", "origin", "dest", "scheduled_departure"),
        ),
        *_codes(),
        _between("flight_number", 1, 9999, "flight numbers have up to four digits"),
        _between("scheduled_minutes", 20, 900, "a flight from New York takes 20 minutes to 15 hours"),
        _between("distance_miles", 10, 5100, "no flight goes further than Honolulu, 4983 miles"),
        _rows(
            "distance_miles / scheduled_minutes * 60 <= 500",
            "planes are slower than 500 mph from gate to gate: another unit, or swapped columns",
        ),
        _rows(
            "distance_miles / scheduled_minutes * 60 >= 60",
            "planes are faster than 60 mph from gate to gate: another unit, or swapped columns",
            mostly=0.98,
        ),
        _rows(
            "scheduled_departure_local = to_timestamp_ntz("
            "from_utc_timestamp(scheduled_departure, 'America/New_York'))",
            "instant and wall clock of the departure disagree: a time zone is wrong",
        ),
        _rows(
            "(unix_micros(scheduled_arrival) - unix_micros(CAST(scheduled_arrival_local AS timestamp)))"
            " div 3600000000 BETWEEN 4 AND 10",
            "destinations are 4 to 10 hours behind UTC: a time zone is wrong",
        ),
        _rows(
            "hour(scheduled_departure_local) BETWEEN 5 AND 23",
            "New York's airports rest from midnight to five: a time zone is wrong",
            mostly=0.99,
        ),
        _rows(
            "scheduled_departure >= published_at AND scheduled_departure <= published_at + INTERVAL 2 DAYS",
            "schedules are published in the two days before departure: a date is wrong",
        ),
        _usual(
            "hour(scheduled_departure_local) div 3",
            "departures moved to other hours of the day: a time zone is wrong, or part of a day is missing",
        ),
        _usual("minute(scheduled_departure) div 5", "departures moved to other minutes: times were rounded"),
        _usual(
            _binned("distance_miles", 200, 300, 500, 750, 1000, 1250, 1750, 2250, 2600),
            "distances are not what they were: another unit, or other routes",
        ),
        _usual(
            _binned("scheduled_minutes", 60, 90, 120, 150, 180, 210, 300),
            "durations are not what they were: another unit, or other routes",
        ),
    ),
)

MOVEMENTS: Final = CleanTable(
    name="movements",
    event_time="occurred_at",
    min_rows_per_day=100,
    usual_volume=(0.1, 1.5),
    fresh_within=timedelta(hours=3),
    references=(
        ReferenceTo(
            column="flight_id",
            table="flights",
            key="flight_id",
            columns=("scheduled_departure", "scheduled_arrival", "carrier"),
            within_days=2,
            why="flights move that no schedule has: the schedule is incomplete, or ids changed",
        ),
    ),
    expectations=(
        _schema(
            flight_id="string",
            carrier="string",
            tail_number="string",
            origin="string",
            dest="string",
            kind="string",
            occurred_at="timestamp",
            delay_minutes="double",
        ),
        *_complete("flight_id", "kind", "occurred_at", "delay_minutes", "carrier", "origin", "dest"),
        _expect(
            "ExpectColumnValuesToNotBeNull",
            "what flies has a registration",
            column="tail_number",
            mostly=0.95,
        ),
        _unique("a movement was delivered twice", "flight_id", "kind"),
        *_codes(),
        _in_set("kind", ["departure", "landing"], "only departures and landings are known"),
        _between("delay_minutes", -120, 1500, "delays are minutes; seconds or hours would be outside"),
        _rows("delay_minutes = round(delay_minutes)", "delays are whole minutes: another unit"),
        _rows(
            "occurred_at = CASE kind WHEN 'departure' THEN _flights_scheduled_departure "
            "WHEN 'landing' THEN _flights_scheduled_arrival END "
            "+ make_dt_interval(0, 0, 0, delay_minutes * 60)",
            "a flight's time is not its schedule plus its delay: a time zone or a unit is wrong",
        ),
        _rows(
            "carrier = _flights_carrier",
            "the movement's carrier is not the schedule's: rows or columns are mixed up",
        ),
        _expect(
            "ExpectColumnMeanToBeBetween",
            "the mean delay over a day was never outside this band in a year",
            column="delay_minutes",
            min_value=-30,
            max_value=150,
        ),
        _varied("delay_minutes", 40, "on every day there are at least 103 different delays", share=0.2),
        _usual("kind", "departures or landings are missing"),
        _usual(
            _binned("delay_minutes", -15, -5, 0, 15, 60),
            "delays are far from what they were (worse than in any storm of a year): another unit or sign",
            threshold=1.5,
        ),
    ),
)

WEATHER: Final = CleanTable(
    name="weather",
    event_time="reported_at",
    min_rows_per_day=48,
    usual_volume=(0.6, 1.4),
    hours=tuple(range(24)),
    missing_hours=6,
    fresh_within=timedelta(hours=3),
    expectations=(
        _schema(
            origin="string",
            reported_at="timestamp",
            temperature_f="double",
            dew_point_f="double",
            relative_humidity_percent="double",
            wind_speed_mph="double",
            wind_gust_mph="double",
            precipitation_inches="double",
            pressure_millibars="double",
            visibility_miles="double",
        ),
        *_complete("origin", "reported_at"),
        *(
            _expect(
                "ExpectColumnValuesToNotBeNull",
                "a sensor or a column went missing",
                column=column,
                mostly=mostly,
            )
            for column, mostly in (
                ("temperature_f", 0.9),
                ("dew_point_f", 0.9),
                ("relative_humidity_percent", 0.9),
                ("wind_speed_mph", 0.9),
                ("precipitation_inches", 0.9),
                ("visibility_miles", 0.9),
                ("pressure_millibars", 0.2),
            )
        ),
        _unique("a report was delivered twice", "origin", "reported_at"),
        _in_set("origin", ORIGINS, "unknown weather station"),
        _usual("origin", "a weather station is missing"),
        _between("temperature_f", -40, 130, "degrees Fahrenheit", mostly=0.99),
        _between("dew_point_f", -60, 90, "degrees Fahrenheit", mostly=0.99),
        _between("relative_humidity_percent", 1, 100, "percent", mostly=0.99),
        _between("visibility_miles", 0, 10, "statute miles, capped at 10", mostly=0.99),
        _between("wind_speed_mph", 0, 100, "one reading of 1048 mph is in the data", mostly=0.95),
        _between("wind_gust_mph", 0, 150, "miles per hour", mostly=0.95),
        _between("pressure_millibars", 930, 1070, "millibars at sea level", mostly=0.99),
        _between("precipitation_inches", 0, 5, "inches in an hour", mostly=0.99),
        _rows(
            "dew_point_f <= temperature_f + 0.5", "air is never colder than its dew point: swapped or in C"
        ),
        _rows(
            # Magnus: humidity from temperature and dew point, both in degrees Celsius.
            "abs(relative_humidity_percent - 100 * exp("
            "17.625 * ((dew_point_f - 32) / 1.8) / (243.04 + (dew_point_f - 32) / 1.8)"
            " - 17.625 * ((temperature_f - 32) / 1.8) / (243.04 + (temperature_f - 32) / 1.8))) < 3",
            "humidity does not follow from temperature and dew point: one of them is in another unit",
            mostly=0.75,
        ),
        _rows(
            f"abs(wind_speed_mph / {KNOT_MPH} - round(wind_speed_mph / {KNOT_MPH})) < 0.03",
            "wind is reported in whole knots, here as mph: another unit, or rounded",
            mostly=0.95,
        ),
        _rows("wind_gust_mph >= wind_speed_mph", "gusts are at least the mean wind: swapped", mostly=0.95),
        _varied("temperature_f", 4, "temperature changes over a day: a sensor is stuck", share=0.7),
        _varied("wind_speed_mph", 4, "wind changes over a day: a sensor is stuck", share=0.7),
        _varied("pressure_millibars", 4, "pressure changes over a day: a sensor is stuck", share=0.6),
        _expect(
            "ExpectMeanToBeUsual",
            "temperature is further from that of the weeks before than in any week of a year: another unit",
            expression="temperature_f",
            difference=40,
        ),
        _expect(
            "ExpectMeanToBeUsual",
            "pressure is further from that of the weeks before than in any storm of a year: another unit",
            expression="pressure_millibars",
            difference=40,
        ),
    ),
)

PLANES: Final = CleanTable(
    name="planes",
    event_time=None,
    min_rows_per_day=1,
    usual_volume=(0.9, 1.5),
    expectations=(
        _schema(
            tail_number="string",
            year_built="bigint",
            manufacturer="string",
            model="string",
            engines="bigint",
            seats="bigint",
        ),
        *_complete("tail_number", "manufacturer", "model", "engines", "seats"),
        _expect("ExpectColumnValuesToNotBeNull", "2% are unknown", column="year_built", mostly=0.9),
        _unique("a plane is listed twice", "tail_number"),
        _matches("tail_number", "^[0-9A-Z]{4,7}$", "registrations are plain capitals and digits"),
        _matches("manufacturer", "^[ -~]+$", "names are plain ASCII; bytes may be damaged"),
        _between("seats", 1, 900, "seats of a plane"),
        _between("engines", 1, 8, "engines of a plane"),
        _between("year_built", 1900, 2100, "a year", mostly=0.99),
        _varied("seats", 5, "planes have 48 different numbers of seats", share=0.5),
    ),
)

CLEAN_TABLES: Final = (FLIGHTS, MOVEMENTS, WEATHER, PLANES)
