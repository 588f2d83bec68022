"""What only Airflow knows of a use case: its runs, what is told as going on, what waits for a person.

Belongs here: asking Airflow's database. Does not belong here: answering the page (`app`).

For Airflow's API server alone, which has the database; nothing here may be imported where DAGs are parsed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.models.variable import Variable
from sqlalchemy import select
from sqlalchemy.orm import Session

from airloop_airflow.alert_kinds import ALERT_KINDS
from airloop_airflow.incidents import PREFIX, incident_of

REMEMBERED = {kind.name: timedelta(days=kind.remembered_days) for kind in ALERT_KINDS}


def last_runs(session: Session, dag_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The last run of each DAG that has one."""
    found = []
    for dag_id in dag_ids:
        run = session.scalars(
            select(DagRun).where(DagRun.dag_id == dag_id).order_by(DagRun.run_after.desc()).limit(1)
        ).first()
        if run is not None:
            found.append(
                {
                    "dag_id": dag_id,
                    "run_id": run.run_id,
                    "state": str(run.state),
                    "run_after": _text(run.run_after),
                    "start": _text(run.start_date),
                    "end": _text(run.end_date),
                }
            )
    return found


def open_incidents(session: Session, use_case: str, now: datetime) -> list[dict[str, Any]]:
    """What was told of `use_case` and is not over, the newest first."""
    found = []
    for variable in session.scalars(select(Variable).where(Variable.key.startswith(PREFIX, autoescape=True))):
        kind = variable.key.removeprefix(PREFIX).partition(".")[0]
        incident = incident_of(variable.get_val())
        if incident is None or incident.use_case != use_case:
            continue
        if now - incident.heard > REMEMBERED.get(kind, timedelta(days=90)):
            continue
        found.append(
            {
                "kind": kind,
                "title": incident.title,
                "severity": incident.severity,
                "run_url": incident.run_url,
                "runbook": incident.runbook,
                "began": _text(incident.began),
                "heard": _text(incident.heard),
                "times": incident.times,
            }
        )
    return sorted(found, key=lambda one: str(one["heard"]), reverse=True)


def waiting_for_a_person(session: Session, dag_ids: Sequence[str]) -> list[dict[str, Any]]:
    """What a person is asked in a run of `dag_ids`, and has not answered."""
    rows = session.execute(
        select(TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, HITLDetail.subject)
        .join(HITLDetail, HITLDetail.ti_id == TaskInstance.id)
        .where(
            TaskInstance.dag_id.in_(dag_ids),
            HITLDetail.responded_at.is_(None),
            TaskInstance.state == "deferred",
        )
    )
    return [dict(row._mapping) for row in rows]


def allowed(manager: Any, user: Any, dag_ids: Mapping[str, str], details: Any, run: Any) -> dict[str, bool]:
    """Which of the actions `user` may take: each starts a run of the DAG that it names."""
    return {
        action: manager.is_authorized_dag(
            method="POST", access_entity=run, details=details(id=dag_id), user=user
        )
        for action, dag_id in dag_ids.items()
    }


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()
