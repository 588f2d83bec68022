"""The table of hourly scores, by version and slice, and reading it as sums.

Belongs here: the table's shape, putting hours into it, reading windows. Does not belong here: making the rows
(`spark_jobs.count_scores`), or what sums say (`scores`, `decay`).
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Final

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import And, BooleanExpression, EqualTo

from airloop.intervals import ONE_DAY, Interval, covering_days
from airloop.lakehouse.provenance import signature
from airloop.monitoring.scores import Scores, Scoring, scoring_of
from airloop.monitoring.scores.sums import nothing
from airloop.monitoring.tables import existing, replace_rows, rows_where, starting_in
from airloop.use_cases.spec import UseCase

LATE_DAYS: Final = 2
"""How long after its labels ought to be there a day is still looked at again."""
COUNTED_LABELS: Final = "airloop.monitoring.labels"
"""Property of the table: what the labels were when scores were counted last."""


def days_needed(spec: UseCase, span: Interval) -> Interval:
    """The whole days, before the end of `span`, whose labels may have come in during `span`, and those before
    that may have to agree with them."""
    days = covering_days([span])
    mature = -(-(spec.prediction_lead + spec.label.matures_after) // ONE_DAY)
    waited = mature + LATE_DAYS + spec.monitoring.decay.windows - 1
    end = span.end.replace(hour=0, minute=0, second=0, microsecond=0)
    return Interval(days.start - waited * ONE_DAY, end)


def arrow_schema(scoring: Scoring) -> pa.Schema:
    """The table's columns."""
    return pa.schema(
        [
            pa.field("version", pa.int64(), nullable=False),
            pa.field("hour", pa.timestamp("us", tz="UTC"), nullable=False),
            pa.field("slice", pa.string(), nullable=False),
            pa.field("cell", pa.int32(), nullable=False),
            *(pa.field(name, pa.float64(), nullable=False) for name in scoring.sums),
        ]
    )


def table_name(spec: UseCase) -> str:
    """The table of a use case's scores."""
    return f"monitoring.{spec.name}_scores"


def counted_labels(catalog: Catalog, name: str) -> str | None:
    """What the labels were when the table `name` was written last."""
    table = existing(catalog, name)
    return None if table is None else table.properties.get(COUNTED_LABELS)


def replace_scores(
    catalog: Catalog, spec: UseCase, version: int, span: Interval, found: pa.Table, counted: str
) -> int:
    """Make `found` (all columns but `version`) what `version` has in `span`, in one commit; how many rows.

    `counted` tells what the labels were; it is kept in the same commit.
    """
    rows = found.append_column("version", pa.array([version] * len(found), pa.int64()))
    schema = arrow_schema(scoring_of(spec.label.target))
    made = rows.select(schema.names).cast(schema)
    replace_rows(
        catalog,
        table_name(spec),
        made,
        _where(version, span),
        time="hour",
        said=signature(spec.name, span),
        properties={COUNTED_LABELS: counted},
    )
    return len(made)


def scores_in(
    catalog: Catalog, spec: UseCase, version: int, span: Interval
) -> dict[datetime, dict[str, Scores]]:
    """The sums of each hour of `span` that has answers, by slice."""
    scoring = scoring_of(spec.label.target)
    found: dict[datetime, dict[str, Scores]] = defaultdict(lambda: defaultdict(lambda: nothing(scoring)))
    for row in rows_where(catalog, table_name(spec), _where(version, span)):
        scores = found[row["hour"]][row["slice"]]
        for name, sums in scores.sums.items():
            sums[row["cell"]] = row[name]
    return {hour: dict(slices) for hour, slices in found.items()}


def _where(version: int, span: Interval) -> BooleanExpression:
    return And(EqualTo(term="version", value=version), starting_in("hour", span))
