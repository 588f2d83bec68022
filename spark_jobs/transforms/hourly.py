"""Features by the full hour: what transforms of hourly features have in common.

Belongs here: hours as epoch seconds, sums over the last of them, rows for hours without events. Does not
belong here: what a use case counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from airloop.intervals import Interval
from spark_jobs.tables import within

HOUR_SECONDS: Final = 3600
GRID_DAYS: Final = 7
"""A key without an event for so long has no hourly rows; the spec's lookback is longer."""


def hour_begun(column: str) -> Column:
    """The full hour, in epoch seconds, that an event at `column` is in."""
    return (F.floor(F.col(column).cast("double") / HOUR_SECONDS) * HOUR_SECONDS).cast("long")


def hour_known(column: str) -> Column:
    """The full hour, in epoch seconds, from which an event at `column` is known: the end of its own hour.

    An event at 13:00:00 belongs to the hour that begins then, as it does in a data interval.
    """
    return ((F.floor(F.col(column).cast("double") / HOUR_SECONDS) + 1) * HOUR_SECONDS).cast("long")


def hour_due(column: str) -> Column:
    """The first full hour, in epoch seconds, at which an event that was known beforehand is due."""
    return (F.ceil(F.col(column).cast("double") / HOUR_SECONDS) * HOUR_SECONDS).cast("long")


def rolling(buckets: DataFrame, keys: tuple[str, ...], hours: int, sums: Mapping[str, str]) -> DataFrame:
    """`buckets` with each column of `sums` summed, as its new name, over the last `hours` buckets."""
    window = Window.partitionBy(*keys).orderBy("hour").rangeBetween(-(hours - 1) * HOUR_SECONDS, 0)
    for name, column in sums.items():
        buckets = buckets.withColumn(name, F.sum(column).over(window))
    return buckets


def on_grid(buckets: DataFrame, keys: tuple[str, ...], interval: Interval, step_hours: int) -> DataFrame:
    """`buckets` with an empty one at every `step_hours` of `interval` for every key that has none then.

    But only for keys with an event in the `GRID_DAYS` before: whether a row is there must not depend on what
    comes later, or on how many days are computed at once.
    """
    start, end = (int(moment.timestamp()) for moment in interval)
    step = step_hours * HOUR_SECONDS
    grid = (
        buckets.select(*keys)
        .distinct()
        .withColumn(
            "hour", F.explode(F.sequence(F.lit(start), F.lit(end - step), F.lit(step)).cast("array<bigint>"))
        )
    )
    rows = buckets.join(grid, [*keys, "hour"], "full_outer").fillna(0, ["events", "delay", "late"])
    return rolling(rows, keys, GRID_DAYS * 24, {"_recent": "events"}).where("_recent > 0").drop("_recent")


def stamped(rows: DataFrame, interval: Interval, step_hours: int = 1) -> DataFrame:
    """`rows` of the interval's grid, with `event_timestamp` in place of `hour`."""
    return (
        rows.where(F.col("hour") % (step_hours * HOUR_SECONDS) == 0)
        .withColumn("event_timestamp", F.timestamp_seconds("hour"))
        .where(within("event_timestamp", interval))
        .drop("hour")
    )


def share(part: str, whole: str) -> Column:
    """`part` of `whole`, null where there is none of it."""
    return F.when(F.col(whole) > 0, F.col(part).cast("double") / F.col(whole))
