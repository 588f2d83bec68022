"""The table of decisions: what was requested when, and why or why not.

Belongs here: the table's shape, writing a decision, reading those before. Does not belong here: deciding
(`decision`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import And, EqualTo, NotEqualTo, Or

from airloop.airflow_run import run_id
from airloop.intervals import ONE_HOUR, Interval
from airloop.lakehouse.provenance import signature
from airloop.monitoring.tables import replace_rows, rows_where
from airloop.retraining.decision import Decision, Refusal
from airloop.use_cases.spec import UseCase

DECISIONS: Final = pa.schema(
    [
        pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("run", pa.string(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),
        pa.field("causes", pa.list_(pa.string())),
        pa.field("requested", pa.bool_(), nullable=False),
        pa.field("refusal", pa.string()),
        pa.field("said", pa.string(), nullable=False),
    ]
)
"""`refusal` is null where there was no cause, and where a candidate was requested."""


class Earlier(NamedTuple):
    """What the decisions of other runs say."""

    last_request: datetime | None
    """Later ones too: an old run that is cleared must not request what a newer one did."""
    refusals: frozenset[Refusal]
    """Those since then."""


def table_name(spec: UseCase) -> str:
    """The table of a use case's decisions."""
    return f"monitoring.{spec.name}_retraining"


def keep_decision(catalog: Catalog, spec: UseCase, version: int, at: datetime, decision: Decision) -> None:
    """Write down what was decided at `at` about the champion `version`; a repeated run replaces its own."""
    row = {
        "at": at,
        "run": run_id(),
        "version": version,
        "causes": [cause.name for cause in decision.causes],
        "requested": decision.requested,
        "refusal": decision.refusal,
        "said": decision.said,
    }
    replace_rows(
        catalog,
        table_name(spec),
        pa.Table.from_pylist([row], DECISIONS),
        And(EqualTo(term="run", value=run_id()), EqualTo(term="at", value=at.isoformat())),
        time="at",
        said=signature(spec.name, Interval(at - ONE_HOUR, at)),
    )


def other_decisions(catalog: Catalog, spec: UseCase, at: datetime) -> Earlier:
    """What was decided, this run's own decision at `at` not counted: it may be repeated."""
    others = Or(NotEqualTo(term="run", value=run_id()), NotEqualTo(term="at", value=at.isoformat()))
    rows = rows_where(catalog, table_name(spec), others)
    requests = [row["at"].astimezone(UTC) for row in rows if row["requested"]]
    last = max(requests, default=None)
    refusals = {Refusal(row["refusal"]) for row in rows if row["refusal"] and (not last or row["at"] > last)}
    return Earlier(last, frozenset(refusals))
