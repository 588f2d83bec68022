"""What is kept of a prediction: one record, as the gateway writes it and as the table has it.

Belongs here: the record's fields and its two forms (a line of JSON, a row). Does not belong here: the files
that lines lie in (`spool`), or how rows get into the table (`land`).
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

TABLE: Final = "serving.predictions"

_UTC: Final = pa.timestamp("us", tz="UTC")


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


ARROW_SCHEMA: Final = pa.schema(
    [
        _required("writer", pa.string()),
        _required("sequence", pa.int64()),
        _required("request_id", pa.string()),
        _required("trace_id", pa.string()),
        _required("instance", pa.int32()),
        _required("caller", pa.string()),
        _required("use_case", pa.string()),
        _required("model", pa.string()),
        _required("version", pa.int64()),
        _required("variant", pa.string()),
        _required("predicted_at", _UTC),
        _required("prediction_time", _UTC),
        _required("probability", pa.float64()),
        _required("latency_seconds", pa.float64()),
        _required("entities", pa.string()),
        _required("request", pa.string()),
        _required("features", pa.string()),
        pa.field("missing_features", pa.list_(pa.string())),
    ]
)
"""Entities, request and features are JSON objects: they differ by use case, and the table is one for all.

`writer` and `sequence` name a record for good: a gateway process counts its records from 1."""


class PredictionRecord(BaseModel):
    """One prediction that was given to a client."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request_id: str
    trace_id: str
    instance: int
    """Its number within a batch, from 0."""
    caller: str
    """Name of the API key."""
    use_case: str
    model: str
    version: int
    variant: str
    """Why this version was asked: "champion", and what a rollout or an experiment adds."""
    predicted_at: datetime
    prediction_time: datetime
    """What was known then is what the features are."""
    probability: float
    latency_seconds: float
    """From the request's last byte to the answer."""
    entities: dict[str, str | int]
    request: dict[str, Any]
    features: dict[str, Any]
    """The values that the model was given; null where there was none."""
    missing_features: list[str]

    def row(self, writer: str, sequence: int) -> dict[str, Any]:
        """The record as a row of the table."""
        found = self.model_dump()
        for name in ("entities", "request", "features"):
            found[name] = json.dumps(self.model_dump(mode="json")[name], sort_keys=True)
        return {"writer": writer, "sequence": sequence, **found}


def line_of(writer: str, sequence: int, record: PredictionRecord) -> bytes:
    """The record as a line of a spool's file."""
    return b'{"writer":"%s","sequence":%d,"record":%s}\n' % (
        writer.encode(),
        sequence,
        record.model_dump_json().encode(),
    )


def row_of(line: bytes) -> dict[str, Any] | None:
    """The row in a line; None for one that is torn or damaged."""
    try:
        document = json.loads(line)
        record = PredictionRecord.model_validate(document["record"])
        return record.row(str(document["writer"]), int(document["sequence"]))
    except (ValueError, KeyError, TypeError, ValidationError):
        return None
