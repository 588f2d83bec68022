"""History: the published clean rows that features, examples and labels are made of.

Belongs here: how much of it is read. Does not belong here: what is made of it.
"""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession

from airloop.intervals import Interval
from airloop.use_cases.spec import UseCase
from spark_jobs.tables import CLEAN, read_table, within

EVENT_TIMESTAMP = "event_timestamp"
"""The column that a row's time is in: a feature's start, an example's prediction time."""


def clean_history(spark: SparkSession, spec: UseCase, interval: Interval) -> dict[str, DataFrame]:
    """Published clean rows of `interval` and of the spec's lookback before it, by table."""
    reach = Interval(interval.start - spec.lookback, interval.end)
    frames = {}
    for table in spec.clean_tables:
        frame = read_table(spark, f"{CLEAN}.{table.name}")
        frames[table.name] = frame.where(within(table.event_time, reach)) if table.event_time else frame
    return frames
