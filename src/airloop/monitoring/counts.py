"""The table of hourly counts, and reading it as arrays.

Belongs here: the table's shape, putting hours into it, sums of hours. Does not belong here: counting
(`spark_jobs.count_predictions`), or what counts say (`windows`).

Counts are in the cells of one version's profile: another version's have other edges. So every row names the
run that the version was made by, and a version that becomes the champion has the hours before counted anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, EqualTo

from airloop.intervals import ONE_HOUR, Interval
from airloop.lakehouse.provenance import signature
from airloop.monitoring.profile import Profile
from airloop.monitoring.tables import replace_rows, rows_where, starting_in
from airloop.use_cases.spec import UseCase

REQUESTS: Final = "requests"
"""What the number of requests is called among the features. Each counted hour has both of its cells."""
ANSWERED, FAILED = 0, 1
"""The cells of `REQUESTS`: answers that clients got, and versions that were asked for one and had none."""
ARROW_SCHEMA: Final = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("hour", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("feature", pa.string(), nullable=False),
        pa.field("cell", pa.int32(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
    ]
)


class Hours(NamedTuple):
    """The counts of consecutive hours."""

    start: datetime
    counted: np.ndarray
    """Whether each hour was counted at all, bool [hours]; one without requests was, too."""
    counts: Mapping[str, np.ndarray]
    """By feature, int64 [hours, cells]."""

    def window(self, span: Interval) -> dict[str, np.ndarray] | None:
        """The sums over `span`, by feature, [cells]; None where not all of its hours were counted."""
        first, last = ((moment - self.start) // ONE_HOUR for moment in span)
        if first < 0 or last > len(self.counted) or not self.counted[first:last].all():
            return None
        return {name: counts[first:last].sum(axis=0) for name, counts in self.counts.items()}


def table_name(spec: UseCase) -> str:
    """The table of a use case's counts."""
    return f"monitoring.{spec.name}_counts"


def uncounted(catalog: Catalog, spec: UseCase, run_id: str, span: Interval) -> list[datetime]:
    """The hours of `span` that have not been counted for the version of `run_id`, earliest first."""
    rows = _rows(catalog, spec, run_id, span, EqualTo(term="feature", value=REQUESTS))
    there = {row["hour"] for row in rows}
    return [hour for hour, _ in span.pieces(ONE_HOUR) if hour not in there]


def replace_hours(catalog: Catalog, spec: UseCase, run_id: str, span: Interval, found: pa.Table) -> int:
    """Make `found` (`hour`, `feature`, `cell`, `rows`) all that `run_id` has in `span`; how many rows.

    Every hour of `span` is thereby counted, those without a row as without requests. One commit.
    """
    rows = [{"run_id": run_id, **row} for row in found.to_pylist()]
    there = {(row["hour"], row["cell"]) for row in rows if row["feature"] == REQUESTS}
    for hour, _ in span.pieces(ONE_HOUR):
        for cell in (ANSWERED, FAILED):
            if (hour, cell) not in there:
                rows.append({"run_id": run_id, "hour": hour, "feature": REQUESTS, "cell": cell, "rows": 0})
    made = pa.Table.from_pylist(rows, ARROW_SCHEMA)
    said = signature(spec.name, span)
    replace_rows(catalog, table_name(spec), made, _where(run_id, span), time="hour", said=said)
    return len(made)


def hours_of(catalog: Catalog, spec: UseCase, profile: Profile, span: Interval) -> Hours:
    """The counts of the profile's version in `span`."""
    rows = _rows(catalog, spec, profile.run_id, span)
    many = span.hours
    cells = {one.cells.feature: len(one.cells.names) for one in (*profile.features, profile.prediction)}
    counts = {name: np.zeros((many, width), np.int64) for name, width in (cells | {REQUESTS: 2}).items()}
    counted = np.zeros(many, bool)
    for row in rows:
        hour = (row["hour"] - span.start) // ONE_HOUR
        counts[row["feature"]][hour, row["cell"]] = row["rows"]
        counted[hour] |= row["feature"] == REQUESTS
    return Hours(span.start, counted, counts)


def _where(run_id: str, span: Interval) -> BooleanExpression:
    return And(EqualTo(term="run_id", value=run_id), starting_in("hour", span))


def _rows(
    catalog: Catalog, spec: UseCase, run_id: str, span: Interval, *also: BooleanExpression
) -> list[dict[str, Any]]:
    return rows_where(catalog, table_name(spec), And(_where(run_id, span), AlwaysTrue(), *also))
