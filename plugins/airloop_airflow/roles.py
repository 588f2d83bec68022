"""The four roles under Airflow's FAB auth manager, as permissions: viewer, operator, approver, admin.

Belongs here: who may do what. Does not belong here: how people sign in
(`deploy/airflow/webserver_config.py`), or the simple login, whose roles are Airflow's own.

A role's permissions are pairs of an action and a resource, in FAB's own words. What is not granted is
refused. Whoever may create runs of a DAG may trigger it; whoever may edit HITL details may answer what a task
asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from airloop.use_cases.spec import UseCase
from airloop_airflow.expected_dags import expected_dags

Permission = tuple[str, str]

VIEWER, OPERATOR, APPROVER, ADMIN = "Viewer", "Operator", "Approver", "Admin"
"""Viewer and Admin are FAB's own."""
NEEDS_APPROVER: Final = ("override",)
"""Kinds of DAG that an operator may not trigger: they approve something."""
_RUNS: Final[frozenset[Permission]] = frozenset(
    {
        ("can_edit", "DAGs"),
        ("can_edit", "DAG Runs"),
        ("can_edit", "Task Instances"),
    }
)
"""Switching DAGs on and off, clearing, stopping: all but triggering, which is granted by DAG."""


def roles(viewer: Iterable[Permission], use_cases: Sequence[UseCase]) -> Mapping[str, frozenset[Permission]]:
    """The permissions of the roles that FAB does not have, given those of its own `viewer`.

    An operator runs everything and approves nothing; an approver approves and, beside looking, triggers only
    what approves. Nobody but an admin edits XComs: the answer of who approved is one.
    """
    sees = frozenset(viewer)
    dag_ids = {expected.dag_id for expected in expected_dags(use_cases)}
    approving = {f"{spec.name}_{kind}" for spec in use_cases for kind in NEEDS_APPROVER}
    asking = {f"{spec.name}_rollout" for spec in use_cases}
    return {
        OPERATOR: sees | _RUNS | _triggering(dag_ids - approving),
        # To answer a task of a DAG, one must be allowed to edit the DAG.
        APPROVER: sees
        | {("can_edit", "HITL Detail")}
        | _triggering(approving)
        | {("can_edit", f"DAG:{dag_id}") for dag_id in asking | approving},
    }


def _triggering(dag_ids: Iterable[str]) -> frozenset[Permission]:
    return frozenset(("can_create", f"DAG Run:{dag_id}") for dag_id in dag_ids)
