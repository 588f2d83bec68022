"""From a clean table's spec to a Great Expectations suite over the rows of an interval.

Belongs here: the expectations that every table owes its interval, the figures that history lends them, and
the columns joined from referenced tables. Does not belong here: running a suite (`spark_jobs.audit`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import great_expectations as gx
from great_expectations import expectations as stock
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from airloop.errors import SpecError
from airloop.intervals import Interval
from airloop.use_cases.spec import CleanTable, Expectation, ReferenceTo
from spark_jobs.auditing import expectations as ours
from spark_jobs.auditing.reference import Reference, bins_of, day_code, hour_code

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def owed(table: CleanTable, interval: Interval, reference: Reference) -> tuple[Expectation, ...]:
    """What every table owes its interval: enough rows, on each day, until its end, as many as usual."""
    if table.event_time is None:
        return (
            Expectation(
                type="ExpectTableRowCountToBeBetween",
                arguments={"min_value": table.min_rows_per_day},
                why="reference data came empty or truncated",
            ),
            *_usual_volume(table, range(1), "0", reference),
        )
    days = _periods(interval, timedelta(days=1))
    found = [
        Expectation(
            type="ExpectTableRowCountToBeBetween",
            arguments={"min_value": table.min_rows_per_day * interval.days},
            why="too little data came: the feed may be stale or truncated",
        ),
        Expectation(
            type="ExpectPeriodsToBeComplete",
            arguments={"code": day_code(table.event_time), "first": days.start, "last": days.stop},
            why="a day has no data at all",
        ),
        *_usual_volume(table, days, day_code(table.event_time), reference),
    ]
    if table.hours:
        hours = _periods(interval, timedelta(hours=1))
        found.append(
            Expectation(
                type="ExpectPeriodsToBeComplete",
                arguments={
                    "code": hour_code(table.event_time),
                    "first": hours.start,
                    "last": hours.stop,
                    "of_day": list(table.hours),
                    "missing": int(table.missing_hours * interval.days),
                    "names": "%Y-%m-%d %H:00Z",
                    "period_seconds": 3600,
                },
                why="hours that always have data have none: part of a day is missing",
            )
        )
    if table.fresh_within is not None:
        found.append(
            Expectation(
                type="ExpectNewestRowToBeRecent",
                arguments={
                    "column": table.event_time,
                    "not_before": (interval.end - table.fresh_within).isoformat(),
                },
                why="the newest row is too old for the interval's end: the feed is stale, cut off or shifted",
            )
        )
    return tuple(found)


def _usual_volume(table: CleanTable, days: range, code: str, reference: Reference) -> tuple[Expectation, ...]:
    if table.usual_volume is None:
        return ()
    low, high = table.usual_volume
    return (
        Expectation(
            type="ExpectVolumeToBeUsual",
            arguments={
                "code": code,
                "first": days.start,
                "last": days.stop,
                "low": low,
                "high": high,
                "reference": reference.volume,
            },
            why="far fewer or more rows than usual: data is missing, or came twice",
        ),
    )


def _periods(interval: Interval, step: timedelta) -> range:
    return range((interval.start - EPOCH) // step, (interval.end - EPOCH) // step)


def with_reference(expectation: Expectation, reference: Reference) -> Expectation:
    """`expectation` with the figures of published history that its type compares with."""
    values = reference.values.get(expectation.arguments.get("expression", ""))
    if expectation.type == "ExpectMeanToBeUsual":
        figure: Any = ours.mean_of(values or {})
    elif expectation.type == "ExpectDistributionToBeUsual":
        figure = bins_of(values) if values else None
    else:
        return expectation
    return expectation.model_copy(update={"arguments": {**expectation.arguments, "reference": figure}})


def compared(table: CleanTable) -> tuple[str, ...]:
    """The SQL expressions of `table` whose values are compared with published history."""
    return tuple(
        expectation.arguments["expression"]
        for expectation in table.expectations
        if expectation.type in ("ExpectMeanToBeUsual", "ExpectDistributionToBeUsual")
    )


def suite_of(table: CleanTable, interval: Interval, reference: Reference) -> gx.ExpectationSuite:
    """The table's expectations as a Great Expectations suite; raises `SpecError` for one that is unknown."""
    declared = (
        *owed(table, interval, reference),
        *(_existing(link) for link in table.references),
        *(with_reference(expectation, reference) for expectation in table.expectations),
    )
    return gx.ExpectationSuite(
        name=table.name, expectations=[_made(expectation, table) for expectation in declared]
    )


def _existing(link: ReferenceTo) -> Expectation:
    return Expectation(
        type="ExpectReferencesToExist",
        arguments={
            "condition": known(link),
            "column": link.column,
            "to_table": link.table,
            "mostly": link.mostly,
        },
        why=link.why,
    )


def _made(expectation: Expectation, table: CleanTable) -> gx.expectations.Expectation:
    kind = getattr(stock, expectation.type, None) or getattr(ours, expectation.type, None)
    if kind is None:
        problem = f"no expectation {expectation.type}"
    else:
        try:
            return kind(**expectation.arguments, notes=expectation.why)
        except (TypeError, ValueError) as error:
            problem = " ".join(str(error).split())
    raise SpecError(
        expected=f"{expectation.type} to be an expectation of Great Expectations or of spark_jobs.auditing",
        found=problem,
        next_step=f"correct the expectations of clean table {table.name} in the use case's spec",
    )


def known(link: ReferenceTo) -> str:
    """The joined column that says whether a row's reference exists; null where it cannot be known."""
    return f"_known_{link.column}"


def join_references(
    rows: DataFrame, table: CleanTable, interval: Interval, others: Mapping[str, tuple[DataFrame, CleanTable]]
) -> DataFrame:
    """`rows` with, for each reference of `table`, whether it exists and the referenced columns.

    `others` holds the referenced tables as the audited branch has them. A referenced row may have come up to
    `within_days` before: where the other table lacks one of those days, nobody can tell, and it is not
    judged.
    """
    for link in table.references:
        other, spec = others[link.table]
        there = F.lit(True)
        if link.within_days is not None and spec.event_time is not None and table.event_time is not None:
            since = interval.start - timedelta(days=link.within_days)
            other = other.where(F.col(spec.event_time) >= F.lit(since.isoformat()).cast("timestamp"))
            other = other.where(F.col(spec.event_time) < F.lit(interval.end.isoformat()).cast("timestamp"))
            days = {row[0] for row in other.select(F.to_date(spec.event_time)).distinct().collect()}
            first = first_judged(days, interval, link.within_days)
            there = F.col(table.event_time) >= F.lit(first.isoformat()).cast("timestamp")
        found = other.select(
            F.col(link.key).alias(link.column),
            *(F.col(name).alias(f"_{link.table}_{name}") for name in link.columns),
            F.lit(True).alias("_found"),
        ).dropDuplicates([link.column])
        if spec.event_time is None:
            found = F.broadcast(found)
        judged = there & F.col(link.column).isNotNull()
        rows = (
            rows.join(found, link.column, "left")
            .withColumn(known(link), F.when(judged, F.col("_found").isNotNull()))
            .drop("_found")
        )
    return rows


def first_judged(days: Iterable[date], interval: Interval, within_days: int) -> datetime:
    """The first midnight of `interval` from which on the `within_days` before each day are among `days`.

    The interval's end when there is none.
    """
    present = set(days)
    first = interval.start
    day = interval.start - timedelta(days=within_days)
    while day < interval.end:
        if day.date() not in present:
            first = day + timedelta(days=within_days + 1)
        day += timedelta(days=1)
    return min(max(first, interval.start), interval.end)
