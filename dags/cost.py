"""`cost`: what tasks used and what it costs, and which budgets are exceeded; hourly, for all use cases."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task

from airloop_airflow import cost as spending
from airloop_airflow.dependencies import check_first
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import platform_arguments, schedule

DOC = """
### Cost

Every task writes down what its job uses: wall time, processors, memory, accelerators. This puts it into
the table `monitoring.usage`, with what it costs by the price table (`AIRLOOP_PRICES`; without one, no
prices), and holds each use case's week against its budget.

| task | what it does | when it fails |
|---|---|---|
| `record` | from files to `monitoring.usage`; the budgets | the price table is wrong: it says where |
| `tell` | says in Slack which budget is exceeded, and when it no longer is | never by Slack's fault |

Runbook: `docs/runbooks/cost_failed.md`; budgets: `docs/runbooks/budget.md`; prices and advice:
`docs/how-to/know-what-it-costs.md`.
"""


def build() -> DAG:
    """The cost DAG of all use cases."""
    with DAG(
        "cost",
        description="What tasks used, what it costs, and which budgets are exceeded",
        doc_md=DOC,
        schedule=schedule("50 * * * *", timedelta(hours=1)),
        is_paused_upon_creation=False,
        **platform_arguments("cost"),
    ) as dag:
        record = job_task(
            None, "record", "airloop.cost.record", {"at": "{{ dag_run.run_after.isoformat() }}"}
        )
        task(spending.tell, task_id="tell")(record.output)
    check_first(dag)
    return dag


cost = build()
