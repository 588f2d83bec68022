"""Rows that refer to others: joined once, known or not, and judged only where that can be told."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from airloop.intervals import Interval
from airloop.use_cases.spec import CleanTable, Expectation, ReferenceTo
from spark_jobs.auditing.suite import first_judged, join_references

START = datetime(2013, 3, 10, tzinfo=UTC)
THREE_DAYS = Interval(START, START + timedelta(days=3))
ANYTHING = (Expectation(type="ExpectRowsToSatisfy", arguments={"condition": "true"}, why="w"),)


def days(*numbers: int) -> list[date]:
    """Days counted from the interval's first."""
    return [(START + timedelta(days=number)).date() for number in numbers]


@pytest.mark.parametrize(
    ("present", "first"),
    [
        (days(-2, -1, 0, 1, 2), 0),
        (days(-3, -2, -1, 0, 1, 2, 3), 0),
        (days(-1, 0, 1, 2), 1),
        (days(-2, 0, 1, 2), 2),
        (days(-2, -1, 1, 2), 3),
        (days(-2, -1, 0, 1), 3),
        (days(), 3),
    ],
)
def test_a_day_is_judged_once_all_days_that_it_may_refer_to_are_there(
    present: list[date], first: int
) -> None:
    assert first_judged(present, THREE_DAYS, 2) == START + timedelta(days=first)


def test_without_days_before_each_day_needs_itself() -> None:
    assert first_judged(days(0, 1, 2), THREE_DAYS, 0) == START
    assert first_judged(days(1, 2), THREE_DAYS, 0) == START + timedelta(days=1)


def moves(link: ReferenceTo) -> CleanTable:
    return CleanTable(
        name="moves", event_time="at", min_rows_per_day=1, expectations=ANYTHING, references=(link,)
    )


def joined(spark: SparkSession, link: ReferenceTo, other: DataFrame, event_time: str | None) -> list[Any]:
    rows = spark.createDataFrame(
        [
            (1, "a", START),
            (2, "z", START + timedelta(days=1)),
            (3, None, START + timedelta(days=2)),
            (4, "b", START + timedelta(days=2)),
            (5, "z", START + timedelta(days=2)),
        ],
        "id long, name string, at timestamp",
    )
    spec = CleanTable(name=link.table, event_time=event_time, min_rows_per_day=1, expectations=ANYTHING)
    found = join_references(rows, moves(link), THREE_DAYS, {link.table: (other, spec)})
    return [tuple(row) for row in found.orderBy("id").drop("name", "at").collect()]


def test_a_reference_is_known_unknown_or_none(spark: SparkSession) -> None:
    link = ReferenceTo(column="name", table="things", key="name", columns=("size",), why="w")
    things = spark.createDataFrame([("a", 7), ("a", 7), ("b", None), ("c", 1)], "name string, size long")
    # In the order id, size, known: a repeated key multiplies no row; a null refers to nothing.
    assert joined(spark, link, things, None) == [
        (1, 7, True),
        (2, None, False),
        (3, None, None),
        (4, None, True),
        (5, None, False),
    ]


def test_where_a_day_of_the_other_table_is_missing_nothing_is_judged(spark: SparkSession) -> None:
    link = ReferenceTo(column="name", table="plans", key="plan", columns=(), within_days=1, why="w")
    made = [("a", -1), ("b", 1), ("z", -2), ("q", 2)]
    plans = spark.createDataFrame(
        [(name, START + timedelta(days=day, hours=5)) for name, day in made], "plan string, at timestamp"
    )
    # The 10th has no plan, so the 10th and the 11th cannot be judged; "z" is older than a row may refer to.
    assert joined(spark, link, plans, "at") == [
        (1, None),
        (2, None),
        (3, None),
        (4, True),
        (5, False),
    ]
