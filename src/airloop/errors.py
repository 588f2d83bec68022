"""The tree of errors that Airloop raises on purpose: what was expected, what was found, what to do next.

Belongs here: the error types and how they cross a process boundary. Does not belong here: catching them.
Anything that is not an `AirloopError` is a defect or an outage, and may succeed on a retry.
"""

from __future__ import annotations

from typing import Any

EXIT_PERMANENT = 65
"""Exit status of a job that failed with an `AirloopError`: a retry cannot succeed (`EX_DATAERR`)."""


class AirloopError(Exception):
    """A failure that a person must act on; running the same thing again fails the same way.

    `expected` and `found` name the two sides of the contradiction; `next_step` says what to do.
    """

    def __init__(self, *, expected: str, found: str, next_step: str) -> None:
        self.expected = expected
        self.found = found
        self.next_step = next_step
        super().__init__(f"expected {expected}; found {found}. Next: {next_step}")

    def as_document(self) -> dict[str, Any]:
        """The error as plain JSON values, for a job's result file."""
        return {
            "type": type(self).__name__,
            "expected": self.expected,
            "found": self.found,
            "next_step": self.next_step,
        }


class SettingsError(AirloopError):
    """The deployment's settings are unusable."""


class SpecError(AirloopError):
    """A use case spec is malformed or contradicts itself."""


class IntervalError(AirloopError):
    """A run's data interval cannot be resolved, or is not one that the job accepts."""


class SourceError(AirloopError):
    """A source cannot be read: a file is missing or truncated, or breaks its contract."""


class AuditError(AirloopError):
    """Data failed its expectations; `main` was left as it was.

    `report_uri` is the first page of the report that shows them.
    """

    def __init__(self, *, expected: str, found: str, next_step: str, report_uri: str = "") -> None:
        self.report_uri = report_uri
        super().__init__(expected=expected, found=found, next_step=next_step)

    def as_document(self) -> dict[str, Any]:
        """See the base class; with `report_uri`."""
        return {**super().as_document(), "report_uri": self.report_uri}


class PublishError(AirloopError):
    """An audited branch cannot be published, for example because `main` moved meanwhile."""


class HistoryError(AirloopError):
    """The published data does not cover the window that was asked for."""


class TuningError(AirloopError):
    """A study is not what was asked for, or has no finished trial."""


class RegistryError(AirloopError):
    """The model registry does not hold what was asked for."""


class PromotionError(AirloopError):
    """A model may not leave its environment, or enter the next."""


class ReleaseError(AirloopError):
    """Changelog, version and tag do not agree."""


class SmokeError(AirloopError):
    """A deployment answers, but not as it should right after it was changed."""


class RolloutError(AirloopError):
    """A candidate failed a check of its rollout; the champion keeps serving."""


class MonitoringError(AirloopError):
    """What a version serves cannot be compared with what it learnt from."""


class BudgetError(AirloopError):
    """A run would spend more than its use case may."""


class StackError(AirloopError):
    """The local stack cannot start, or one of its services is not well."""
