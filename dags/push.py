"""`<use_case>_push`: the day so far, into the online features, as each hour ends."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, chain, task

from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop_airflow import assets, run_times
from airloop_airflow.dependencies import check_first
from airloop_airflow.forms import ask, optional_text
from airloop_airflow.ingestion import ingest
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import dag_arguments, schedule

DOC = """
### Push

Keeps the online features as fresh as the hour: lands what the sources have of the day so far, and pushes the
newest value of each feature. A model sees offline exactly what is online an hour at a time. The values come
before the day's audit; the features DAG replaces them with audited ones. An hour that was missed is made up
for by the next. A use case that reads the tables of another follows that one's push, and lands nothing.

| task | what it does | when it fails |
|---|---|---|
| `resolve_hour` | form, else the hour that just ended | correct the time |
| `ingest` | the day so far to `raw`, each record once | the source broke its contract |
| `push` | the newest values into the online store | nothing was published yet: run the features DAG |

Runbook: `docs/runbooks/push_failed.md`.
"""


def build(use_case: UseCase) -> DAG:
    """The push DAG of `use_case`."""
    with DAG(
        f"{use_case.name}_push",
        description=f"Online features as each hour ends: {use_case.description}",
        doc_md=DOC,
        schedule=[assets.pushed_of(use_case.lender)]
        if use_case.lender is not None
        else schedule(use_case.schedules.push, timedelta(hours=1)),
        **dag_arguments(use_case, "push"),
    ) as dag:
        span = task(run_times.day_so_far, task_id="resolve_hour")()
        push = job_task(
            use_case,
            "push",
            "spark_jobs.push",
            {"until": span["end"]},
            outlets=[assets.pushed_of(use_case.name)],
        )
        if use_case.lender is None:
            chain(ingest(use_case, span), push)
    check_first(dag)
    ask(
        dag,
        {
            "until": optional_text(
                format="date-time",
                title="Until",
                description="full hour in UTC; empty for the one that just ended",
            ),
        },
    )
    return dag


for _use_case in all_use_cases():
    if _use_case.is_pushed:
        globals()[f"{_use_case.name}_push"] = build(_use_case)
