"""What only Airflow knows of a use case: its runs, what is told as going on, what waits for a person.

Belongs here: asking Airflow's database. Does not belong here: answering the page (`app`).

For Airflow's API server alone, which has the database; nothing here may be imported where DAGs are parsed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.models.variable import Variable
from sqlalchemy import select
from sqlalchemy.orm import Session

from airloop_airflow.alert_kinds import (
    ALERT_KINDS,
    AUDIT_FAILED,
    DRILL_FAILED,
    EXPERIMENT,
    ROLLOUT,
    TASK_FAILED,
)
from airloop_airflow.incidents import PREFIX, incident_of

NO_ALERT = {ROLLOUT.name, EXPERIMENT.name}
FAILURES = {TASK_FAILED.name, AUDIT_FAILED.name, DRILL_FAILED.name}
WAITING = ("awaiting_input", "deferred")
"""The states of a task that asks a person something."""
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


def open_incidents(
    session: Session, use_case: str, runs: Sequence[Mapping[str, Any]], now: datetime
) -> list[dict[str, Any]]:
    """What was told of `use_case` and is not over, the newest first.

    A failure is over once a later one of the DAG's last `runs` went well; how rollouts and experiments go is
    no alert.
    """
    well = {run["dag_id"]: run["end"] for run in runs if run["state"] == "success" and run["end"]}
    found = []
    for variable in session.scalars(select(Variable).where(Variable.key.startswith(PREFIX, autoescape=True))):
        kind = variable.key.removeprefix(PREFIX).partition(".")[0]
        incident = incident_of(variable.get_val())
        if incident is None or incident.use_case != use_case or kind in NO_ALERT:
            continue
        if kind in FAILURES and (_text(incident.heard) or "") < well.get(_dag_of(incident.run_url), ""):
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


def waiting_for_a_person(session: Session, dag_ids: Collection[str]) -> list[dict[str, Any]]:
    """What a person is asked in a run of `dag_ids`, and has not answered."""
    rows = session.execute(
        select(TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, HITLDetail.subject)
        .join(HITLDetail, HITLDetail.ti_id == TaskInstance.id)
        .where(
            TaskInstance.dag_id.in_(dag_ids),
            HITLDetail.responded_at.is_(None),
            TaskInstance.state.in_(WAITING),
        )
    )
    return [dict(row._mapping) for row in rows]


def switched_off(session: Session, dag_ids: Mapping[str, str]) -> list[str]:
    """The actions of `dag_ids`, the DAG that each starts, whose DAG is off or unknown: a run of it would wait
    for ever."""
    on = set(
        session.scalars(
            select(DagModel.dag_id).where(
                DagModel.dag_id.in_(set(dag_ids.values())), DagModel.is_paused.is_(False)
            )
        )
    )
    return [action for action, dag_id in dag_ids.items() if dag_id not in on]


def _dag_of(run_url: str) -> str:
    return run_url.partition("/dags/")[2].partition("/")[0]


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()
