"""`<use_case>_skew`: were the features that were served those that training would have had? Daily."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task

from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop_airflow import monitoring, run_times
from airloop_airflow.dependencies import check_first
from airloop_airflow.forms import ask, days
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import dag_arguments, schedule

DOC = """
### Skew

Compares the features of each answer that a client got, as they were served, with those of the offline tables
at that moment, by the same join as a training set's. Some always differ: what is pushed as an hour ends takes
minutes to arrive. Whoever looks after the model is told which features differ in more answers than the use
case's spec allows, once, and when that is over.

Beside that, a report of the day's inputs and answers is made for whoever wants to look: how each is spread,
against the champion's training set and against the same day a week before. Nothing follows from it.

| task | what it does | when it fails |
|---|---|---|
| `resolve_interval` | form, else the day before the run | correct the dates |
| `count_skew` | to `monitoring.<use case>_skew`; skipped before the day has features | clear it: safe |
| `tell_skew` | says in Slack what is new | never by Slack's fault |
| `reference` | the champion; skipped without one | MLflow is down |
| `report` | Evidently's pages about the day, for people; its Report button | clear it: safe |

Runbook: `docs/runbooks/skew_failed.md`; what to do about skew: `docs/runbooks/skew.md`.
"""


def build(use_case: UseCase) -> DAG:
    """The skew DAG of `use_case`."""
    with DAG(
        f"{use_case.name}_skew",
        description=f"Served features against training's: {use_case.description}",
        doc_md=DOC,
        schedule=schedule(use_case.schedules.skew, timedelta(days=1)),
        is_paused_upon_creation=False,
        **dag_arguments(use_case, "skew"),
    ) as dag:
        interval = task(run_times.features_interval, task_id="resolve_interval")()
        span = {"start": interval["start"], "end": interval["end"]}
        if use_case.has_features:
            counted = job_task(
                use_case,
                "count_skew",
                "spark_jobs.count_skew",
                {**span, "at": "{{ dag_run.run_after.isoformat() }}"},
            )
            task(monitoring.tell_skew, task_id="tell_skew")(counted.output)
        watched = job_task(
            use_case,
            "reference",
            "airloop.monitoring.reference",
            {"end": interval["end"]},
            multiple_outputs=True,
        )
        job_task(
            use_case,
            "report",
            "airloop.monitoring.day_report",
            {**span, "version": watched.output["version"], "run-id": watched.output["run_id"]},
            has_report=True,
        )
    check_first(dag)
    ask(dag, days())
    return dag


for _use_case in all_use_cases():
    if _use_case.is_online:
        globals()[f"{_use_case.name}_skew"] = build(_use_case)
