"""Which task's run, as lineage events name it, this process works for.

Belongs here: the names under which a task tells its job, and what they say. Does not belong here: how a task
computes them (`airloop_airflow.lineage`), or Airflow's own names for a run (`airloop.airflow_run`).

The names are those that other OpenLineage integrations read too.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

PARENT_ID: Final = "OPENLINEAGE_PARENT_ID"
ROOT_PARENT_ID: Final = "OPENLINEAGE_ROOT_PARENT_ID"


class LineageRun(NamedTuple):
    """A run, as events name it."""

    namespace: str
    job: str
    """`<dag_id>.<task_id>`, or of a DAG run `<dag_id>`."""
    run_id: str
    """A UUID."""


class Parents(NamedTuple):
    """The task that this process is a job of, and the DAG run that the task belongs to."""

    task: LineageRun
    dag: LineageRun


def parents() -> Parents | None:
    """Who started this process; None when no task with lineage events did."""
    task, dag = _run(os.environ.get(PARENT_ID, "")), _run(os.environ.get(ROOT_PARENT_ID, ""))
    return Parents(task, dag) if task and dag else None


def _run(identifier: str) -> LineageRun | None:
    parts = identifier.rsplit("/", 2)
    return LineageRun(*parts) if len(parts) == 3 else None
