"""The table of skew: how many of a day's served feature values are not those that training would have had.

Belongs here: the table's shape, the verdict on a day, and what is new of it. Does not belong here: comparing
rows (`spark_jobs.count_skew`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import pyarrow as pa
from pyiceberg.catalog import Catalog

from airloop.intervals import ONE_DAY, Interval
from airloop.lakehouse.provenance import signature
from airloop.monitoring.silences import SKEW, Silences
from airloop.monitoring.tables import replace_rows, rows_where, starting_in
from airloop.references import JudgedSkew
from airloop.use_cases.monitoring_policy import Monitoring
from airloop.use_cases.spec import UseCase

COUNTS: Final = ("rows", "unequal", "only_online", "only_offline")
SCHEMA: Final = pa.schema(
    [
        pa.field("day", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("feature", pa.string(), nullable=False),
        *(pa.field(name, pa.int64(), nullable=False) for name in COUNTS),
        pa.field("mean_absolute_difference", pa.float64()),
        pa.field("skewed", pa.bool_()),
    ]
)
"""`unequal` counts answers with another value on each side, or on one side only; of these, `only_online` had
one in serving alone, and `only_offline` in the recomputed features alone. The difference is among numbers
that both sides have. `skewed` is null where there were too few answers to say."""
REMEMBERED: Final = timedelta(days=31)
"""How far back a day that could be judged is looked for."""
MOST_LINES: Final = 10


def table_name(spec: UseCase) -> str:
    """The table of a use case's skew, a row for each day and feature."""
    return f"monitoring.{spec.name}_skew"


def judged_rows(counted: Sequence[Mapping[str, Any]], policy: Monitoring) -> list[dict[str, Any]]:
    """`counted` rows of days and features, with whether each is skewed; None with too few answers to say."""
    most, enough = policy.skew.most_unequal_share, policy.min_requests
    return [
        {**row, "skewed": None if row["rows"] < enough else row["unequal"] > most * row["rows"]}
        for row in counted
    ]


def replace_skew(catalog: Catalog, spec: UseCase, span: Interval, rows: Sequence[Mapping[str, Any]]) -> None:
    """Make `rows` what the table has of the days of `span`, in one commit."""
    replace_rows(
        catalog,
        table_name(spec),
        pa.Table.from_pylist(list(rows), SCHEMA),
        starting_in("day", span),
        time="day",
        said=signature(spec.name, span),
    )


class JudgedDay(NamedTuple):
    """What was found on an earlier day."""

    end: datetime
    skewed: frozenset[str]


def last_judged_before(catalog: Catalog, spec: UseCase, day: datetime) -> JudgedDay | None:
    """The newest day before `day`, of the month before it, on which anything could be judged."""
    span = Interval(day - REMEMBERED, day)
    rows = rows_where(catalog, table_name(spec), starting_in("day", span))
    judged = [row for row in rows if row["skewed"] is not None]
    if not judged:
        return None
    last = max(row["day"] for row in judged)
    return JudgedDay(
        last + ONE_DAY, frozenset(r["feature"] for r in judged if r["day"] == last and r["skewed"])
    )


def said_of(
    rows: Sequence[Mapping[str, Any]], before: JudgedDay | None, silences: Silences, at: datetime
) -> JudgedSkew:
    """What is new of the day of `rows` against the judged day `before`, as of the moment `at`.

    What was silenced then is news as soon as it no longer is; of a feature with too few answers nothing is.
    """
    if not rows:
        return JudgedSkew(skipped="no answer of that day has features to compare")
    day = rows[0]["day"]
    now = frozenset(row["feature"] for row in rows if row["skewed"])
    fine = frozenset(row["feature"] for row in rows if row["skewed"] is False)
    was = before.skewed if before is not None else frozenset()
    told = (
        was if before is None or SKEW not in silences.at(before.end + (at - day - ONE_DAY)) else frozenset()
    )
    silence = silences.at(at).get(SKEW)
    worst = sorted(rows, key=lambda row: -row["unequal"] / row["rows"])
    return JudgedSkew(
        day=day.date().isoformat(),
        rows=max(row["rows"] for row in rows),
        skewed=tuple(sorted(now)),
        began=() if silence else tuple(sorted(now - told)),
        cleared=tuple(sorted(was & fine)),
        silenced=silence.said if silence else None,
        lines=tuple(_line(row) for row in worst[:MOST_LINES] if row["unequal"]),
        unequal_shares={
            row["feature"]: row["unequal"] / row["rows"] for row in rows if row["skewed"] is not None
        },
    )


def _line(row: Mapping[str, Any]) -> str:
    text = f"{row['feature']}: {row['unequal'] / row['rows']:.1%} of {row['rows']:,} unequal"
    if row["only_online"]:
        text += f", {row['only_online'] / row['rows']:.1%} only online"
    if row["only_offline"]:
        text += f", {row['only_offline'] / row['rows']:.1%} only offline"
    if row["mean_absolute_difference"]:
        text += f", numbers differ by {row['mean_absolute_difference']:.3g} on average"
    return text
