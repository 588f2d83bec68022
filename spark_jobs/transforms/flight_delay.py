"""What flight_delay makes of its source: clean tables, feature tables and labelled examples.

Belongs here: pure functions of data frames, with only what Spark Connect has. Does not belong here: reading
or writing tables, sessions, or time other than as an argument.

Every feature row is stamped with the moment from which its values are known, so that a point-in-time join
can never reach the future: hourly rows at hour T use events of T or before; a plane's row is stamped with
the movement that made it; weather with the moment of its report.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from airloop.intervals import Interval
from airloop.sources.contract import SOURCE_OFFSET, SOURCE_TIME
from spark_jobs.tables import within

HOUR_SECONDS = 3600
LATE_MINUTES = 15
"""A flight is late when it arrives more than this after its schedule: the US DOT's definition."""
CARRIER_GRID_HOURS = 6
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
    movements = clean["movements"].withColumn("hour", _hour_known("occurred_at")).cache()
    departures = movements.where("kind = 'departure'")
    landings = movements.where("kind = 'landing'")
    return {
        "origin_hourly": _origin_hourly(clean["flights"], departures, interval),
        "origin_carrier_hourly": _origin_carrier_hourly(departures, interval),
        "origin_weather": _origin_weather(clean["weather"], interval),
        "carrier_hourly": _carrier_hourly(landings, interval),
        "route_history": _route_history(landings, interval),
        "tail_history": _tail_history(movements, clean["planes"], interval),
    }


def examples(clean: Mapping[str, DataFrame], interval: Interval, lead: timedelta) -> DataFrame:
    """Labelled requests whose prediction time lies in `interval`.

    Columns: the request's fields as the schedule has them, `event_timestamp` (the prediction time, `lead`
    before departure), and `arrived_late`. Only flights that landed are in: cancelled and diverted flights
    have no label.
    """
    seconds = int(lead.total_seconds())
    landed = (
        clean["movements"]
        .where("kind = 'landing'")
        .select("flight_id", (F.col("delay_minutes") > LATE_MINUTES).cast("int").alias("arrived_late"))
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
        )
    )


def _latest(records: DataFrame, *key: str) -> DataFrame:
    """Each record once: of those with the same `key`, the one that its source wrote last."""
    order = Window.partitionBy(*key).orderBy(F.desc(SOURCE_TIME), F.desc(SOURCE_OFFSET))
    return records.withColumn("_rank", F.row_number().over(order)).where("_rank = 1").drop("_rank")


def _code(name: str) -> Column:
    return F.when(F.trim(name) != "", F.upper(F.trim(name))).alias(name)


def _hour_known(column: str) -> Column:
    """The first full hour, in epoch seconds, at which an event at `column` is known."""
    return (F.ceil(F.col(column).cast("double") / HOUR_SECONDS) * HOUR_SECONDS).cast("long")


def _rolling(buckets: DataFrame, keys: tuple[str, ...], hours: int, sums: Mapping[str, str]) -> DataFrame:
    """`buckets` with each column of `sums` summed, as its new name, over the last `hours` buckets."""
    window = Window.partitionBy(*keys).orderBy("hour").rangeBetween(-(hours - 1) * HOUR_SECONDS, 0)
    for name, column in sums.items():
        buckets = buckets.withColumn(name, F.sum(column).over(window))
    return buckets


def _buckets(events: DataFrame, keys: tuple[str, ...]) -> DataFrame:
    """Events per hour: how many, the sum of their delays, and how many of them were late."""
    return events.groupBy(*keys, "hour").agg(
        F.count("*").alias("events"),
        F.sum("delay_minutes").alias("delay"),
        F.sum((F.col("delay_minutes") > LATE_MINUTES).cast("long")).alias("late"),
    )


def _on_grid(buckets: DataFrame, keys: tuple[str, ...], interval: Interval, step_hours: int) -> DataFrame:
    """`buckets` with an empty one for every key at every `step_hours` of `interval` that has none."""
    start, end = (int(moment.timestamp()) for moment in interval)
    step = step_hours * HOUR_SECONDS
    grid = (
        buckets.select(*keys)
        .distinct()
        .withColumn(
            "hour", F.explode(F.sequence(F.lit(start), F.lit(end - step), F.lit(step)).cast("array<bigint>"))
        )
    )
    return buckets.join(grid, [*keys, "hour"], "full_outer").fillna(0, ["events", "delay", "late"])


def _stamped(rows: DataFrame, interval: Interval, step_hours: int = 1) -> DataFrame:
    """`rows` of the interval's grid, with `event_timestamp` in place of `hour`."""
    return (
        rows.where(F.col("hour") % (step_hours * HOUR_SECONDS) == 0)
        .withColumn("event_timestamp", F.timestamp_seconds("hour"))
        .where(within("event_timestamp", interval))
        .drop("hour")
    )


def _share(part: str, whole: str) -> Column:
    return F.when(F.col(whole) > 0, F.col(part).cast("double") / F.col(whole))


def _overdue(flights: DataFrame, departures: DataFrame) -> DataFrame:
    """Per origin and hour: flights that should have departed, up to `OVERDUE_HOURS` before, and have not."""
    window_end = F.col("due") + OVERDUE_HOURS * HOUR_SECONDS
    left = departures.select("flight_id", F.col("occurred_at").cast("double").alias("left_at"))
    waiting = (
        flights.select("flight_id", "origin", F.col("scheduled_departure").cast("double").alias("due"))
        .join(left, "flight_id", "left")
        .withColumn("first", F.ceil(F.col("due") / HOUR_SECONDS).cast("long"))
        .withColumn(
            "last",
            (F.ceil(F.least(F.coalesce("left_at", window_end), window_end) / HOUR_SECONDS) - 1).cast("long"),
        )
        .where("first <= last")
        .withColumn("index", F.explode(F.sequence("first", "last")))
        .withColumn("hour", F.col("index") * HOUR_SECONDS)
    )
    return waiting.groupBy("origin", "hour").agg(F.count("*").cast("double").alias("origin_overdue_flights"))


def _origin_hourly(flights: DataFrame, departures: DataFrame, interval: Interval) -> DataFrame:
    keys = ("origin",)
    rows = _on_grid(_buckets(departures, keys), keys, interval, 1)
    rows = _rolling(rows, keys, 3, {"n3": "events", "delay3": "delay", "late3": "late"})
    rows = rows.join(_overdue(flights, departures), ["origin", "hour"], "left")
    return _stamped(
        rows.select(
            "origin",
            "hour",
            F.col("n3").cast("double").alias("origin_departures_3h"),
            _share("delay", "events").alias("origin_mean_departure_delay_1h"),
            _share("delay3", "n3").alias("origin_mean_departure_delay_3h"),
            _share("late3", "n3").alias("origin_late_share_3h"),
            F.coalesce("origin_overdue_flights", F.lit(0.0)).alias("origin_overdue_flights"),
        ),
        interval,
    )


def _origin_carrier_hourly(departures: DataFrame, interval: Interval) -> DataFrame:
    keys = ("origin", "carrier")
    rows = _on_grid(_buckets(departures, keys), keys, interval, 1)
    rows = _rolling(rows, keys, 3, {"n3": "events", "delay3": "delay"})
    return _stamped(
        rows.select(*keys, "hour", _share("delay3", "n3").alias("origin_carrier_mean_departure_delay_3h")),
        interval,
    )


def _origin_weather(weather: DataFrame, interval: Interval) -> DataFrame:
    return weather.where(within("reported_at", interval)).withColumnRenamed("reported_at", "event_timestamp")


def _carrier_hourly(landings: DataFrame, interval: Interval) -> DataFrame:
    keys = ("carrier",)
    rows = _on_grid(_buckets(landings, keys), keys, interval, CARRIER_GRID_HOURS)
    rows = _rolling(rows, keys, 7 * 24, {"n7d": "events", "late7d": "late"})
    rows = _rolling(rows, keys, 6, {"n6": "events", "delay6": "delay"})
    return _stamped(
        rows.select(
            "carrier",
            "hour",
            _share("late7d", "n7d").alias("carrier_delay_rate_7d"),
            _share("delay6", "n6").alias("carrier_mean_arrival_delay_6h"),
        ),
        interval,
        CARRIER_GRID_HOURS,
    )


def _route_history(landings: DataFrame, interval: Interval) -> DataFrame:
    """A row whenever a flight of the route landed, not one an hour: most routes have a few flights a day."""
    keys = ("origin", "dest")
    sums = {"n7d": "events", "late7d": "late", "delay7d": "delay"}
    rows = _rolling(_buckets(landings, keys), keys, 7 * 24, sums)
    return _stamped(
        rows.select(
            *keys,
            "hour",
            _share("late7d", "n7d").alias("route_delay_rate_7d"),
            _share("delay7d", "n7d").alias("route_mean_arrival_delay_7d"),
        ),
        interval,
    )


def _tail_history(movements: DataFrame, planes: DataFrame, interval: Interval) -> DataFrame:
    last = Window.partitionBy("tail_number", "occurred_at").orderBy("kind", "flight_id")
    return (
        movements.where(within("occurred_at", interval) & F.col("tail_number").isNotNull())
        .withColumn("_rank", F.row_number().over(last))
        .where("_rank = 1")
        .join(planes.select("tail_number", "seats", "year_built"), "tail_number", "left")
        .select(
            "tail_number",
            F.col("occurred_at").alias("event_timestamp"),
            F.col("delay_minutes").alias("tail_last_delay_minutes"),
            F.col("occurred_at").cast("long").alias("tail_last_event_at"),
            F.col("seats").cast("double").alias("tail_seats"),
            F.col("year_built").cast("double").alias("tail_year_built"),
        )
    )
