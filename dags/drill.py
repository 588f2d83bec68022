"""`<use_case>_drill`: the version that a rollback would go to loads and answers; weekly."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop_airflow.dependencies import check_first
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import dag_arguments, schedule

DOC = """
### Drill

Takes the last good version from the registry, verifies its signature, loads it on a model server of its own
and replays its recorded requests; where the model server holds it, there too. What serves is not touched.

| task | what it does | when it fails |
|---|---|---|
| `drill` | proves that there is a way back | there is none: see the runbook before you need it |

Runbook: `docs/runbooks/drill_failed.md`.
"""


def build(use_case: UseCase) -> DAG:
    """The drill DAG of `use_case`."""
    with DAG(
        f"{use_case.name}_drill",
        description=f"There is a way back: {use_case.description}",
        doc_md=DOC,
        schedule=schedule(use_case.schedules.drill, timedelta(days=7)),
        is_paused_upon_creation=False,
        **dag_arguments(use_case, "drill"),
    ) as dag:
        job_task(use_case, "drill", "serving.drill", {})
    check_first(dag)
    return dag


for _use_case in all_use_cases():
    globals()[f"{_use_case.name}_drill"] = build(_use_case)
