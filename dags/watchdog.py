"""`watchdog`: what nothing fails of: missing and stuck runs, DAGs that are off, late data; hourly."""

from __future__ import annotations

from airflow.sdk import DAG, task

from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop_airflow import watchdog as look_after
from airloop_airflow.dependencies import check_first
from airloop_airflow.expected_dags import HOUR, WATCHDOG_CRON
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import owned_by, platform_arguments, schedule

DOC = """
### Watchdog

Finds what no task can fail of: a run that the clock should have started and that is not there, one that does
not end, a DAG that somebody switched off, and data that were not published in time, however they should have
been. Each is told when it begins and when it is over.

It cannot run while the scheduler is down; what watches the scheduler says `docs/runbooks/watchdog_failed.md`.

| task | what it does | when it fails |
|---|---|---|
| `check_runs` | DAGs and their runs against the clock | Airflow's API server did not answer: clear it |
| `late_data_<use case>` | the tables' rows against the deadline | the catalog did not answer: clear it |
| `tell_<use case>` | says in Slack what is late, and what is there again | never by Slack's fault |

Runbooks: `docs/runbooks/watchdog_failed.md`; what to do: `docs/runbooks/missed_schedule.md` and
`docs/runbooks/late_data.md`.
"""


def build(use_cases: tuple[UseCase, ...]) -> DAG:
    """The watchdog of all use cases: an outage is one message, not one for each."""
    with DAG(
        "watchdog",
        description="Runs that are missing or stuck, DAGs that are off, data that are late; hourly",
        doc_md=DOC,
        schedule=schedule(WATCHDOG_CRON, HOUR),
        is_paused_upon_creation=False,
        **platform_arguments("watchdog"),
    ) as dag:
        checked = task(look_after.check_runs, task_id="check_runs")()
        for spec in use_cases:
            late = job_task(
                spec,
                f"late_data_{spec.name}",
                "airloop.monitoring.late_data",
                {"at": "{{ dag_run.run_after.isoformat() }}"},
            )
            task(look_after.tell_late_data, task_id=f"tell_{spec.name}", **owned_by(spec))(
                late.output, checked
            )
    check_first(dag)
    return dag


watchdog = build(all_use_cases())
