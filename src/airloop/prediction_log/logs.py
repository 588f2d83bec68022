"""The logs that gateways keep: predictions, and what became of them.

Belongs here: what each log is made of (its spool's folder, its records, its table). Does not belong here:
writing (`spool`) or landing (`land`), which do the same for both.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from pydantic import ValidationError

from airloop.prediction_log import outcome, record
from airloop.prediction_log.outcome import OutcomeRecord
from airloop.prediction_log.record import PredictionRecord
from airloop.settings import Settings


@dataclass(frozen=True)
class Log:
    """One kind of record, from a gateway to a table."""

    table: str
    schema: pa.Schema
    """Of the table; a record's `row` has these columns."""
    day: str
    """The column by whose day the table is partitioned."""
    record: type[PredictionRecord] | type[OutcomeRecord]
    folder: Callable[[Settings], Path]
    """Where its spool is."""

    def row_of(self, line: bytes) -> dict[str, Any] | None:
        """The row in a line of the spool; None for one that is torn or damaged."""
        try:
            document = json.loads(line)
            found = self.record.model_validate(document["record"])
            return found.row(str(document["writer"]), int(document["sequence"]))
        except (ValueError, KeyError, TypeError, ValidationError):
            return None


PREDICTIONS: Final = Log(
    record.TABLE,
    record.ARROW_SCHEMA,
    "predicted_at",
    PredictionRecord,
    lambda settings: settings.prediction_spool_dir,
)
OUTCOMES: Final = Log(
    outcome.TABLE,
    outcome.ARROW_SCHEMA,
    "received_at",
    OutcomeRecord,
    lambda settings: settings.outcome_spool_dir,
)
