"""`<use_case>_scoring`: what the champion says of every event of a day, in a table; daily."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, chain, task

from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop_airflow import run_times
from airloop_airflow.dependencies import check_first
from airloop_airflow.forms import ask, days
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import dag_arguments, schedule

DOC = """
### Scoring

Scores each event whose prediction time lies in the run's days, with the features that were known then, by the
champion alone, into `scoring.<use case>`. A day that is scored again is replaced, as of the same features, by
whatever is the champion then; the column `version` says which that was.

| task | what it does | when it fails |
|---|---|---|
| `resolve_interval` | form, else the day before the run | correct the dates |
| `scoring_set` | events and their features as of each prediction time | run the features DAG over the days |
| `score` | the champion's answers to the table | no champion yet, or the model server is down |

Runbook: `docs/runbooks/scoring_failed.md`.
"""


def build(use_case: UseCase) -> DAG:
    """The scoring DAG of `use_case`."""
    with DAG(
        f"{use_case.name}_scoring",
        description=f"Batch scores by the champion: {use_case.description}",
        doc_md=DOC,
        schedule=schedule(use_case.schedules.scoring, timedelta(days=1)),
        **dag_arguments(use_case, "scoring"),
    ) as dag:
        interval = task(run_times.features_interval, task_id="resolve_interval")()
        span = {"start": interval["start"], "end": interval["end"]}
        asked = job_task(use_case, "scoring_set", "spark_jobs.scoring_set", span, multiple_outputs=True)
        score = job_task(
            use_case, "score", "serving.score", {**span, "snapshot-id": asked.output["snapshot_id"]}
        )
        chain(asked, score)
    check_first(dag)
    ask(dag, days())
    return dag


for _use_case in all_use_cases():
    if _use_case.event_table:
        globals()[f"{_use_case.name}_scoring"] = build(_use_case)
