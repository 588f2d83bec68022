"""What a job said when it failed for good, as an exception that Airflow does not retry.

Belongs here: the exception, and what it tells on-call. Does not belong here: running jobs (`jobs`), or the
alert (`alerts`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin

from airflow.sdk.exceptions import AirflowFailException

from airloop_airflow.addresses import ui_url
from airloop_airflow.reports import report_path

BETWEEN_FAILURES = " | "
"""What an audit has between the expectations that failed."""


class PermanentFailure(AirflowFailException):
    """A job failed in a way that another try cannot mend."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        """`error` is the job's document: `type`, `expected`, `found`, `next_step`, maybe `report_uri`."""
        super().__init__(
            f"{error['type']}: expected {error['expected']}; found {error['found']}. "
            f"Next: {error['next_step']}."
        )
        self.type: str = error["type"]
        self._error = dict(error)

    def __reduce__(self) -> tuple[Any, ...]:
        """An exception is made again from its arguments by default, and the message is not the document."""
        return type(self), (self._error,)

    @property
    def said(self) -> str:
        """What was found, a line for each finding, and where the report is."""
        lines = str(self._error["found"]).split(BETWEEN_FAILURES)
        if path := report_path(self._error.get("report_uri") or ""):
            lines.append(f"Report: {urljoin(ui_url(), path)}")
        return "\n".join(lines)
