"""What airport_congestion makes of flight_delay's tables: features of the hour that begins, and its label."""

from collections.abc import Mapping
from datetime import timedelta

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from airloop.intervals import Interval
from spark_jobs.tables import within
from spark_jobs.transforms.hourly import HOUR_SECONDS, hour_begun, hour_known, stamped

KEYS, DAY_SECONDS = ("origin", "hour"), 24 * HOUR_SECONDS


def features(clean: Mapping[str, DataFrame], interval: Interval) -> dict[str, DataFrame]:
    """Flights due in the hour, how late their planes were last, how late that hour was on days before."""
    due = clean["flights"].withColumn("hour", hour_begun("scheduled_departure"))
    due = due.where(F.col("published_at").cast("long") < F.col("hour")).select("tail_number", *KEYS)
    moved = clean["movements"].withColumn("hour", hour_known("occurred_at")).drop("origin")
    of_plane = Window.partitionBy("tail_number").orderBy("hour").rangeBetween(-DAY_SECONDS, 0)
    inbound = F.when(
        F.col("tail_number").isNotNull(), F.max_by("delay_minutes", "occurred_at").over(of_plane)
    )
    rows = due.unionByName(moved, allowMissingColumns=True).withColumn("inbound", inbound)
    rows = (
        rows.where("origin IS NOT NULL")
        .groupBy(*KEYS)
        .agg(
            F.count("*").cast("double").alias("origin_departures_due_1h"),
            F.avg("inbound").alias("origin_inbound_delay_1h"),
        )
    )
    for days in (1, 7):
        hour, name = F.col("hour") + days * DAY_SECONDS, f"origin_same_hour_delay_{days}d"
        before = _left(clean).select("origin", hour.alias("hour"), F.col("delay").alias(name))
        rows = rows.join(before, [*KEYS], "left")
    return {"origin_next_hour": stamped(rows, interval)}


def examples(clean: Mapping[str, DataFrame], interval: Interval, lead: timedelta) -> DataFrame:
    """The mean departure delay of each airport and hour in which flights left, asked as the hour begins."""
    hour = F.timestamp_seconds("hour")
    rows = _left(clean).select(
        "origin",
        hour.alias("hour"),
        F.from_utc_timestamp(hour, "America/New_York").cast("timestamp_ntz").alias("hour_local"),
        (hour - F.expr(f"INTERVAL {int(lead.total_seconds())} SECONDS")).alias("event_timestamp"),
        F.col("delay").alias("mean_departure_delay_minutes"),
    )
    return rows.where(within("event_timestamp", interval))


def _left(clean: Mapping[str, DataFrame]) -> DataFrame:
    departures = clean["movements"].where("kind = 'departure'").withColumn("hour", hour_begun("occurred_at"))
    return departures.groupBy(*KEYS).agg(F.avg("delay_minutes").alias("delay"))
