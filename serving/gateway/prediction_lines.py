"""The log line of a prediction, on standard output.

Belongs here: its two forms. Does not belong here: the prediction log, which is a table
(`airloop.prediction_log`).

As text, the line is the whole record in JSON, for whoever looks on. As a line for a search engine
(`airloop.logs`) it says who was asked, by whom and what came of it, and leaves out what a request was about:
its keys, fields and features may be personal data, and no erasure reaches that engine.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

from airloop.logs import JSON, EcsLines
from airloop.prediction_log.record import PredictionRecord

PREDICTIONS: Final = "airloop.predictions"
"""The logger's name."""
RECORD: Final = "prediction"
"""The attribute of a log record with the `PredictionRecord`."""
_SAID: Final = frozenset(
    {"use_case", "model", "version", "variant", "instance", "latency_seconds", "model_seconds", "error"}
)


class PredictionLines(EcsLines):
    """One line for each prediction, without what it was about."""

    def format_to_ecs(self, record: logging.LogRecord) -> dict[str, Any]:
        """The line's fields."""
        made: PredictionRecord = record.__dict__[RECORD]
        found = super().format_to_ecs(record)
        outcome = made.error or "answered"
        found["message"] = f"{made.use_case}: version {made.version} ({made.variant}) {outcome}"
        found["airloop"] = made.model_dump(mode="json", include=_SAID, exclude_none=True)
        found["http"] = {"request": {"id": made.request_id}}
        # A copy's answer comes to a thread that works for no request.
        found.setdefault("trace", {})["id"] = made.trace_id
        return found


def log_predictions(service: str, log_format: str) -> None:
    """Have each prediction's line written to standard output, and nothing else there."""
    lines = logging.StreamHandler(sys.stdout)
    as_json = log_format == JSON
    lines.setFormatter(
        PredictionLines(service, hidden=RECORD) if as_json else logging.Formatter("%(message)s")
    )
    predictions = logging.getLogger(PREDICTIONS)
    predictions.addHandler(lines)
    predictions.propagate = False
