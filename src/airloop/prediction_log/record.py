"""What is kept of a prediction: one record, as the gateway writes it and as the table has it.

An answer that a client got is one record; so is every attempt beside it: a copy that a shadow answered, a
canary that failed so that the champion answered in its place.

Belongs here: the record's fields, and the row that it becomes. Does not belong here: the files that records
lie in (`spool`), or how rows get into the table (`land`).
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

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
        pa.field("answer", pa.list_(pa.float64())),
        _required("latency_seconds", pa.float64()),
        _required("entities", pa.string()),
        _required("request", pa.string()),
        _required("features", pa.string()),
        pa.field("missing_features", pa.list_(pa.string())),
        pa.field("error", pa.string()),
        pa.field("model_seconds", pa.float64()),
        pa.field("unit", pa.string()),
        pa.field("event", pa.string()),
    ]
)
"""Entities, request and features are JSON objects: they differ by use case, and the table is one for all.

`writer` and `sequence` name a record for good: a gateway process counts its records from 1."""


class PredictionRecord(BaseModel):
    """One version's answer to one request, or its failure to give one."""

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
    """Why this version was asked: `airloop.prediction_log.variants`."""
    predicted_at: datetime
    prediction_time: datetime
    """What was known then is what the features are."""
    answer: tuple[float, ...] | None
    """The numbers that `target.answers` of the label names; None where there was no usable answer."""
    latency_seconds: float
    """From the request's last byte to the answer; of a shadow's copy, to the end of the attempt."""
    entities: dict[str, str | int]
    request: dict[str, Any]
    features: dict[str, Any]
    """The values that the model was given; null where there was none."""
    missing_features: list[str]
    error: str | None = None
    """Why there is no answer: `airloop.prediction_log.variants`."""
    model_seconds: float | None = None
    """What the model server took."""
    unit: str | None = None
    """What was drawn by, hashed: an experiment gives the same unit the same version every time."""
    event: str | None = None
    """What it is about (`airloop.prediction_request.event_of`), for its label; older records lack it."""

    def row(self, writer: str, sequence: int) -> dict[str, Any]:
        """The record as a row of the table."""
        found = self.model_dump()
        for name in ("entities", "request", "features"):
            found[name] = json.dumps(self.model_dump(mode="json")[name], sort_keys=True)
        return {"writer": writer, "sequence": sequence, **found}
