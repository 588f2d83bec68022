"""What flight_delay makes of its source: clean tables, feature tables and labelled examples.

Belongs here: pure functions of data frames, with only what Spark Connect has. Does not belong here: reading
or writing tables, sessions, or time other than as an argument.

Every feature row is stamped with the full hour from which its values are known, so that a point-in-time join
can never reach the future: a row at hour T uses events before T. That is also when the online store
gets it, as each hour ends: what training sees of a moment is what a request at that moment is answered from.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from airloop.intervals import Interval
from airloop.sources.contract import SOURCE_OFFSET, SOURCE_TIME
from spark_jobs.tables import first_of_each, within
from spark_jobs.transforms.hourly import (
    HOUR_SECONDS,
    hour_due,
    hour_known,
    on_grid,
    rolling,
    share,
    stamped,
)

LATE_MINUTES = 15
"""A flight is late when it arrives more than this after its schedule: the US DOT's definition."""
CARRIER_GRID_HOURS = 6
PLANNED_IN_HOURS = 2
"""A prediction is asked this long before departure; the schedule counts departures around that hour."""
OVERDUE_HOURS = 3
"""A flight still at the gate counts as overdue this long; after that it is probably cancelled."""


def clean(raw: Mapping[str, DataFrame]) -> dict[str, DataFrame]:
    """Clean tables from the raw records of one interval.

    Of several versions of a record the one that its source wrote last counts; codes are trimmed and in
    capitals; a flight without a plane assigned has a null `tail_number`.
    """
    flights = _latest(raw["flights"], "flight_id").select(
        "flight_id",
        *(_code(name) for name in ("carrier", "tail_number", "origin", "dest")),
        "flight_number",
        "published_at",
        "scheduled_departure",
        "scheduled_departure_local",
        "scheduled_arrival",
        "scheduled_arrival_local",
        "distance_miles",
        ((F.col("scheduled_arrival").cast("long") - F.col("scheduled_departure").cast("long")) / 60).alias(
            "scheduled_minutes"
        ),
    )
    movements = _latest(raw["movements"], "flight_id", "kind").select(
        "flight_id",
        *(_code(name) for name in ("carrier", "tail_number", "origin", "dest")),
        "kind",
        "occurred_at",
        "delay_minutes",
    )
    weather = _latest(raw["weather"], "origin", "reported_at").select(
        _code("origin"),
        "reported_at",
        *(c for c in raw["weather"].columns if not c.startswith("_") and c not in ("origin", "reported_at")),
    )
    planes = _latest(raw["planes"], "tail_number").select(
        _code("tail_number"), "year_built", "manufacturer", "model", "engines", "seats"
    )
    return {"flights": flights, "movements": movements, "weather": weather, "planes": planes}


def features(clean: Mapping[str, DataFrame], interval: Interval) -> dict[str, DataFrame]:
    """Feature rows known in `interval`, by feature table, from clean rows that reach back far enough."""
    flights = clean["flights"]
    movements = clean["movements"].withColumn("hour", hour_known("occurred_at")).cache()
    departures = movements.where("kind = 'departure'")
    landings = movements.where("kind = 'landing'")
    overdue = _overdue(flights, departures).cache()
    return {
        "origin_hourly": _origin_hourly(flights, departures, overdue, interval),
        "origin_carrier_hourly": _origin_carrier_hourly(departures, overdue, interval),
        "origin_weather": _origin_weather(clean["weather"], interval),
        "dest_hourly": _dest_hourly(landings, interval),
        "carrier_hourly": _carrier_hourly(landings, interval),
        "route_history": _route_history(landings, interval),
        "tail_history": _tail_history(movements, flights, clean["planes"], interval),
        "tail_schedule": _tail_schedule(flights, interval),
    }


def examples(clean: Mapping[str, DataFrame], interval: Interval, lead: timedelta) -> DataFrame:
    """Labelled requests whose prediction time lies in `interval`.

    Columns: the request's fields as the schedule has them, `event_timestamp` (the prediction time, `lead`
    before departure), `arrived_late` and `arrival_delay_minutes`. Only flights that landed are in:
    cancelled and diverted flights have no label.
    """
    seconds = int(lead.total_seconds())
    landed = (
        clean["movements"]
        .where("kind = 'landing'")
        .select(
            "flight_id",
            F.col("delay_minutes").alias("arrival_delay_minutes"),
            (F.col("delay_minutes") > LATE_MINUTES).cast("int").alias("arrived_late"),
        )
    )
    return (
        clean["flights"]
        .withColumn("event_timestamp", F.col("scheduled_departure") - F.expr(f"INTERVAL {seconds} SECONDS"))
        .where(within("event_timestamp", interval))
        .join(landed, "flight_id")
        .select(
            "flight_id",
            "origin",
            "dest",
            "carrier",
            "tail_number",
            "scheduled_departure",
            "scheduled_departure_local",
            "scheduled_arrival",
            "scheduled_arrival_local",
            "event_timestamp",
            "arrived_late",
            "arrival_delay_minutes",
        )
    )


def _latest(records: DataFrame, *key: str) -> DataFrame:
    """Each record once: of those with the same `key`, the one that its source wrote last."""
    return first_of_each(records, key, F.desc(SOURCE_TIME), F.desc(SOURCE_OFFSET))


def _code(name: str) -> Column:
    return F.when(F.trim(name) != "", F.upper(F.trim(name))).alias(name)


def _summed(buckets: DataFrame, keys: tuple[str, ...], spans_hours: tuple[int, ...]) -> DataFrame:
    """`buckets` with all their columns summed by `rolling`: `n3`, `delay3` and `late3` over three hours."""
    for hours in spans_hours:
        sums = {f"n{hours}": "events", f"delay{hours}": "delay", f"late{hours}": "late"}
        buckets = rolling(buckets, keys, hours, sums)
    return buckets


def _buckets(events: DataFrame, keys: tuple[str, ...]) -> DataFrame:
    """Events per hour: how many, the sum of their delays, and how many of them were late."""
    return events.groupBy(*keys, "hour").agg(
        F.count("*").alias("events"),
        F.sum("delay_minutes").alias("delay"),
        F.sum((F.col("delay_minutes") > LATE_MINUTES).cast("long")).alias("late"),
    )


def _overdue(flights: DataFrame, departures: DataFrame) -> DataFrame:
    """A row per flight and hour at which it should have departed, up to `OVERDUE_HOURS` ago, and has not.

    Columns: `origin`, `carrier`, `hour`, and the `minutes` that it is overdue.
    """
    window_end = F.col("due") + OVERDUE_HOURS * HOUR_SECONDS
    left = departures.select("flight_id", F.col("occurred_at").cast("double").alias("left_at"))
    return (
        flights.select(
            "flight_id", "origin", "carrier", F.col("scheduled_departure").cast("double").alias("due")
        )
        .join(left, "flight_id", "left")
        .withColumn("first", F.ceil(F.col("due") / HOUR_SECONDS).cast("long"))
        .withColumn(
            "last",
            F.least(
                F.floor(F.col("left_at") / HOUR_SECONDS).cast("long"),
                (F.ceil(window_end / HOUR_SECONDS) - 1).cast("long"),
            ),
        )
        .where("first <= last")
        .withColumn("index", F.explode(F.sequence("first", "last")))
        .withColumn("hour", F.col("index") * HOUR_SECONDS)
        .select("origin", "carrier", "hour", ((F.col("hour") - F.col("due")) / 60).alias("minutes"))
    )


def _with_overdue(rows: DataFrame, overdue: DataFrame, keys: tuple[str, ...]) -> DataFrame:
    """`rows` with `overdue_flights` and `overdue_minutes`, their sum, of each key and hour."""
    found = overdue.groupBy(*keys, "hour").agg(
        F.count("*").cast("double").alias("overdue_flights"), F.sum("minutes").alias("overdue_minutes")
    )
    return rows.join(found, [*keys, "hour"], "left").fillna(0.0, ["overdue_flights", "overdue_minutes"])


def _planned(flights: DataFrame) -> DataFrame:
    """Per origin and hour: departures that the schedule has in the hour `PLANNED_IN_HOURS` later.

    Columns `planned_before`, `planned` and `planned_after` are of the hour before it, of it, and the next.
    Only flights that were published by then count.
    """
    columns = {"planned_before": -1, "planned": 0, "planned_after": 1}
    due_hour = F.floor(F.col("scheduled_departure").cast("long") / HOUR_SECONDS)
    counted = [
        flights.select(
            "origin",
            ((due_hour - PLANNED_IN_HOURS - shift) * HOUR_SECONDS).alias("hour"),
            F.col("published_at").cast("long").alias("known_at"),
            F.lit(name).alias("column"),
        ).where("known_at < hour")
        for name, shift in columns.items()
    ]
    every = counted[0].unionByName(counted[1]).unionByName(counted[2])
    return every.groupBy("origin", "hour").agg(
        *(F.sum((F.col("column") == name).cast("double")).alias(name) for name in columns)
    )


def _origin_hourly(
    flights: DataFrame, departures: DataFrame, overdue: DataFrame, interval: Interval
) -> DataFrame:
    keys = ("origin",)
    rows = on_grid(_buckets(departures, keys), keys, interval, 1)
    rows = _summed(rows, keys, (3, 6, 24))
    whole = Window.partitionBy("hour")
    for name in ("events", "delay", "late"):
        rows = rows.withColumn(f"network_{name}", F.sum(name).over(whole))
    rows = _with_overdue(rows, overdue, keys)
    rows = rows.join(_planned(flights), ["origin", "hour"], "left")
    return stamped(
        rows.select(
            "origin",
            "hour",
            F.col("n3").cast("double").alias("origin_departures_3h"),
            share("delay", "events").alias("origin_mean_departure_delay_1h"),
            share("delay3", "n3").alias("origin_mean_departure_delay_3h"),
            share("delay6", "n6").alias("origin_mean_departure_delay_6h"),
            share("delay24", "n24").alias("origin_mean_departure_delay_24h"),
            share("late3", "n3").alias("origin_late_share_3h"),
            share("late24", "n24").alias("origin_late_share_24h"),
            F.col("overdue_flights").alias("origin_overdue_flights"),
            F.col("overdue_minutes").alias("origin_overdue_minutes"),
            *(
                F.coalesce(name, F.lit(0.0)).alias(f"origin_departures_{name}")
                for name in ("planned_before", "planned", "planned_after")
            ),
            share("network_delay", "network_events").alias("network_mean_departure_delay_1h"),
            share("network_late", "network_events").alias("network_late_share_1h"),
        ),
        interval,
    )


def _origin_carrier_hourly(departures: DataFrame, overdue: DataFrame, interval: Interval) -> DataFrame:
    keys = ("origin", "carrier")
    rows = on_grid(_buckets(departures, keys), keys, interval, 1)
    rows = rolling(rows, keys, 3, {"n3": "events", "delay3": "delay"})
    rows = _with_overdue(rows, overdue, keys)
    return stamped(
        rows.select(
            *keys,
            "hour",
            share("delay3", "n3").alias("origin_carrier_mean_departure_delay_3h"),
            F.col("overdue_flights").alias("origin_carrier_overdue_flights"),
            F.col("overdue_minutes").alias("origin_carrier_overdue_minutes"),
        ),
        interval,
    )


def _origin_weather(weather: DataFrame, interval: Interval) -> DataFrame:
    """The last report of each hour, and what changed since the last one of the hour three hours before."""
    known = weather.withColumn("hour", hour_known("reported_at"))
    reports = first_of_each(known, ("origin", "hour"), F.desc("reported_at")).drop("reported_at")
    changes = {
        "temperature_f": "temperature_change_3h_f",
        "wind_speed_mph": "wind_speed_change_3h_mph",
        "pressure_millibars": "pressure_change_3h_millibars",
        "visibility_miles": "visibility_change_3h_miles",
    }
    before = reports.select(
        "origin",
        (F.col("hour") + 3 * HOUR_SECONDS).alias("hour"),
        *(F.col(name).alias(f"_{name}") for name in changes),
    )
    rows = reports.join(before, ["origin", "hour"], "left")
    for name, change in changes.items():
        rows = rows.withColumn(change, F.col(name) - F.col(f"_{name}"))
    return stamped(rows, interval)


def _dest_hourly(landings: DataFrame, interval: Interval) -> DataFrame:
    keys = ("dest",)
    rows = on_grid(_buckets(landings, keys), keys, interval, 1)
    rows = _summed(rows, keys, (3, 24))
    return stamped(
        rows.select(
            "dest",
            "hour",
            F.col("n3").cast("double").alias("dest_landings_3h"),
            share("delay3", "n3").alias("dest_mean_arrival_delay_3h"),
            share("delay24", "n24").alias("dest_mean_arrival_delay_24h"),
            share("late3", "n3").alias("dest_late_share_3h"),
            share("late24", "n24").alias("dest_late_share_24h"),
        ),
        interval,
    )


def _carrier_hourly(landings: DataFrame, interval: Interval) -> DataFrame:
    keys = ("carrier",)
    rows = on_grid(_buckets(landings, keys), keys, interval, CARRIER_GRID_HOURS)
    rows = rolling(rows, keys, 7 * 24, {"n7d": "events", "late7d": "late"})
    rows = rolling(rows, keys, 6, {"n6": "events", "delay6": "delay"})
    return stamped(
        rows.select(
            "carrier",
            "hour",
            share("late7d", "n7d").alias("carrier_delay_rate_7d"),
            share("delay6", "n6").alias("carrier_mean_arrival_delay_6h"),
        ),
        interval,
        CARRIER_GRID_HOURS,
    )


def _route_history(landings: DataFrame, interval: Interval) -> DataFrame:
    """A row whenever a flight of the route landed, not one an hour: most routes have a few flights a day."""
    keys = ("origin", "dest")
    sums = {"n7d": "events", "late7d": "late", "delay7d": "delay"}
    rows = rolling(_buckets(landings, keys), keys, 7 * 24, sums)
    return stamped(
        rows.select(
            *keys,
            "hour",
            share("late7d", "n7d").alias("route_delay_rate_7d"),
            share("delay7d", "n7d").alias("route_mean_arrival_delay_7d"),
        ),
        interval,
    )


def _tail_history(
    movements: DataFrame, flights: DataFrame, planes: DataFrame, interval: Interval
) -> DataFrame:
    """A row for each hour in which a plane moved: its last movement, the flight that it was of, the plane."""
    known = movements.where(F.col("tail_number").isNotNull())
    rows = (
        first_of_each(known, ("tail_number", "hour"), F.desc("occurred_at"), "kind", "flight_id")
        .join(flights.select("flight_id", "scheduled_departure", "scheduled_minutes"), "flight_id", "left")
        .join(planes.select("tail_number", "seats", "year_built"), "tail_number", "left")
    )
    return stamped(
        rows.select(
            "tail_number",
            "hour",
            F.col("delay_minutes").alias("tail_last_delay_minutes"),
            F.col("occurred_at").cast("long").alias("tail_last_event_at"),
            (F.col("kind") == "landing").cast("double").alias("tail_last_was_landing"),
            F.col("scheduled_departure").cast("long").alias("tail_last_scheduled_departure_at"),
            F.col("scheduled_minutes").alias("tail_last_scheduled_minutes"),
            F.col("seats").cast("double").alias("tail_seats"),
            F.col("year_built").cast("double").alias("tail_year_built"),
        ),
        interval,
    )


def _tail_schedule(flights: DataFrame, interval: Interval) -> DataFrame:
    """A row for each hour in which a plane should depart: the last such flight, as published by then."""
    published = (
        flights.where(F.col("tail_number").isNotNull())
        .withColumn("hour", hour_due("scheduled_departure"))
        .where(F.col("published_at").cast("long") < F.col("hour"))
    )
    rows = first_of_each(published, ("tail_number", "hour"), F.desc("scheduled_departure"), "flight_id")
    return stamped(
        rows.select(
            "tail_number",
            "hour",
            F.col("scheduled_departure").cast("long").alias("tail_due_departure_at"),
            F.col("scheduled_minutes").alias("tail_due_minutes"),
        ),
        interval,
    )
