"""The roles as data: every DAG has its place, and nobody has by chance what only an admin may."""

from __future__ import annotations

import pytest

from airloop.use_cases.catalogue import all_use_cases
from airloop_airflow.expected_dags import expected_dags
from airloop_airflow.roles import APPROVER, OPERATOR, roles

SEES = {("can_read", "DAGs"), ("can_read", "XComs"), ("menu_access", "DAGs")}
FOUND = roles(SEES, all_use_cases())
OVERRIDES = {f"{spec.name}_override" for spec in all_use_cases()}
ADMINS = {"XComs", "Connections", "Variables", "Configurations", "Users", "Roles"}


def _triggers(role: str) -> set[str]:
    prefix = "DAG Run:"
    return {name.removeprefix(prefix) for act, name in FOUND[role] if act == "can_create"}


def test_each_dag_is_triggered_by_operators_or_approves_something() -> None:
    every = {dag.dag_id for dag in expected_dags(all_use_cases())}
    assert _triggers(OPERATOR) == every - OVERRIDES
    assert _triggers(APPROVER) == OVERRIDES


@pytest.mark.parametrize("role", [OPERATOR, APPROVER])
def test_neither_role_has_what_gets_round_the_other(role: str) -> None:
    assert FOUND[role] >= SEES
    may = {(act, name) for act, name in FOUND[role] - SEES if act != "can_create"}
    assert not {name for _, name in may} & ADMINS
    assert (("can_edit", "HITL Detail") in may) == (role == APPROVER)
    assert (("can_edit", "Task Instances") in may) == (role == OPERATOR)


def test_all_dags_at_once_may_be_triggered_by_nobody() -> None:
    assert not [role for role, may in FOUND.items() if ("can_create", "DAG Runs") in may]
