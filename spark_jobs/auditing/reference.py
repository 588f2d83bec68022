"""What is usual: figures of the published rows before an interval, which its own are compared with.

Belongs here: reading them, and saying when there are too few. Does not belong here: how far from usual is too
far (the use case's spec), or any row of the interval itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from statistics import median
from types import MappingProxyType
from typing import NamedTuple

from pyspark.sql import SparkSession

from airloop.intervals import Interval
from airloop.use_cases.spec import CleanTable
from spark_jobs.auditing.expectations import OTHER
from spark_jobs.auditing.one_pass import By, Rows, Sampled, measure, slice_for
from spark_jobs.tables import CLEAN, within

FEWEST_DAYS = 3
"""With fewer published days nothing is known to be usual."""
MOST_BINS = 20
SMALLEST_BIN = 0.005
"""Share of the reference below which a value shares a bin with all the other rare ones."""


class Reference(NamedTuple):
    """Published history: an empty one judges nothing."""

    volume: float | None = None
    """Median rows of a day (of the whole table, for reference data)."""
    values: Mapping[str, Counter[object]] = MappingProxyType({})
    """Rows by value of an expression."""


def day_code(column: str) -> str:
    """SQL for the number of the UTC day of `column`, since 1970."""
    return f"unix_micros({column}) div 86400000000"


def hour_code(column: str) -> str:
    """SQL for the number of the UTC hour of `column`, since 1970."""
    return f"unix_micros({column}) div 3600000000"


def read_reference(
    spark: SparkSession, table: CleanTable, interval: Interval, expressions: Sequence[str], rows: int
) -> Reference:
    """What `main` of `table` says is usual for `interval`, from its `reference_days` before.

    `rows` is about how many the interval has; far more than usual are sampled alike.
    """
    published = spark.table(f"{CLEAN}.{table.name}")
    if table.event_time is None:
        total = measure(published, [Rows()], slice_for(0, table.name))[0]
        return Reference(volume=float(total) if total else None)
    window = Interval(interval.start - timedelta(days=table.reference_days), interval.start)
    expected = rows * table.reference_days // max(interval.days, 1)
    wanted = [By(day_code(table.event_time)), *(Sampled(expression) for expression in expressions)]
    days, *values = measure(
        published.where(within(table.event_time, window)),
        wanted,
        slice_for(expected, interval.key),
        key_of(table),
    )
    if len(days) < FEWEST_DAYS:
        return Reference()
    return Reference(float(median(days.values())), dict(zip(expressions, values, strict=True)))


def key_of(table: CleanTable) -> tuple[str, ...]:
    """The columns that tell rows of `table` apart, by its first expectation of that; empty without one."""
    keys = (item for item in table.expectations if item.type == "ExpectKeyToBeUnique")
    return tuple(next((item.arguments["columns"] for item in keys), ()))


def bins_of(values: Counter[object]) -> dict[str, int] | None:
    """Rows per bin: a frequent value each, the others together; None without rows."""
    total = sum(values.values())
    if not total:
        return None
    common = {str(v): n for v, n in values.most_common(MOST_BINS) if n >= SMALLEST_BIN * total}
    return {**common, OTHER: total - sum(common.values())}
