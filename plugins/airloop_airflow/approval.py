"""The task that asks a person to approve.

Belongs here: who is asked, and how the answer is handed on. Does not belong here: what is asked (the DAG), or
whether the answer counts (`airloop.approval`, in the job that follows).
"""

from __future__ import annotations

from typing import Any, Final

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.execution_time.hitl import HITLUser

from airloop.settings import load_settings

TASK_ID: Final = "approve"
APPROVED_BY: Final = (
    "{{ ((ti.xcom_pull(task_ids='"
    + TASK_ID
    + "') or {}).get('responded_by_user') or {}).get('name') or '' }}"
)
"""Who approved, for a job's flag: as Airflow wrote it down, and empty for a task that was marked as done."""


class PersonApproves(ApprovalOperator):
    """Waits till one of the approvers answers.

    Airflow refuses everybody else where the settings name approvers. Where they name none, it asks whoever
    its roles let: by the simple login, that is whoever may start a run.
    """

    def execute(self, context: Any) -> Any:
        """Ask; the settings are read as it is asked, for parsing reads nothing."""
        approvers = load_settings().approvers
        # By the simple login, a user's id is the name.
        self.assigned_users = [HITLUser(id=name, name=name) for name in approvers] or None
        return super().execute(context)
