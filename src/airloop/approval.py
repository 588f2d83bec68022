"""Who may approve: promotions that the spec wants approved, and candidates that their verdict rejected.

Belongs here: the check that jobs make, whatever was pressed in Airflow. Does not belong here: asking the
person (`airloop_airflow.approval`), or Airflow's own roles (`airloop_airflow.roles`).

The names are Airflow's: of the user who answered, or who started the run. Nobody types them.
"""

from __future__ import annotations

from airloop.errors import AirloopError
from airloop.settings import Settings


class ApprovalError(AirloopError):
    """Nobody who may has approved it."""


def may_approve(settings: Settings, who: str) -> bool:
    """Whether `who` is one of the approvers; where the settings name none, Airflow has asked already."""
    return bool(who) and (not settings.approvers or who in settings.approvers)


def require_approver(settings: Settings, who: str, what: str) -> None:
    """Raises `ApprovalError` unless `who` may approve `what`; an empty name never may."""
    if not may_approve(settings, who):
        named = f": {', '.join(settings.approvers)}" if settings.approvers else ""
        raise ApprovalError(
            expected=f"{what} to be approved by somebody who may{named}",
            found=f"{who!r}" if who else "nobody who approved it (was the task marked as done?)",
            next_step="have an approver do it in Airflow; AIRLOOP_APPROVERS or Airflow's roles say who may",
        )
