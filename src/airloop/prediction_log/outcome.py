"""What became of a prediction: the label, once it is known, as the gateway is told it.

Belongs here: the record of one outcome, and the table's rows read as labels. Does not belong here: the
prediction itself (`record`), or the files and tables that they reach (`spool`, `land`).

An outcome may be told again: what was received last counts.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

TABLE: Final = "serving.outcomes"

_UTC: Final = pa.timestamp("us", tz="UTC")

ARROW_SCHEMA: Final = pa.schema(
    [
        pa.field("writer", pa.string(), nullable=False),
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("instance", pa.int32(), nullable=False),
        pa.field("use_case", pa.string(), nullable=False),
        pa.field("label", pa.float64(), nullable=False),
        pa.field("observed_at", _UTC, nullable=False),
        pa.field("received_at", _UTC, nullable=False),
        pa.field("caller", pa.string(), nullable=False),
    ]
)


class OutcomeRecord(BaseModel):
    """The label of one prediction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request_id: str
    """The id of the request that was answered."""
    instance: int
    """Its number within a batch, from 0."""
    use_case: str
    label: float
    """1 or 0, the number of a class, or the number itself (`airloop.use_cases.target`)."""
    observed_at: datetime
    """When it was known."""
    received_at: datetime
    caller: str
    """Name of the API key."""

    def row(self, writer: str, sequence: int) -> dict[str, Any]:
        """The record as a row of the table."""
        return {"writer": writer, "sequence": sequence, **self.model_dump()}


def latest(rows: pa.Table) -> pa.Table:
    """`request_id`, `instance` and `label` of each prediction whose outcome is known, each once."""
    ordered = rows.sort_by([("received_at", "ascending"), ("writer", "ascending"), ("sequence", "ascending")])
    found = ordered.group_by(["request_id", "instance"], use_threads=False).aggregate([("label", "last")])
    return found.select(["request_id", "instance", "label_last"]).rename_columns(
        ["request_id", "instance", "label"]
    )
