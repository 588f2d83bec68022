"""`<use_case>_overview`: what the use case's page in Airflow shows, written whenever something changed."""

from __future__ import annotations

from airflow.sdk import DAG

from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop_airflow import assets
from airloop_airflow.dependencies import check_first
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import dag_arguments

DOC = """
### Overview

Puts a year of drift, quality, traffic and cost, the candidates, tables and audits into one document, which
the page *Airloop* shows. What serves, the traffic's split and the running rollout are not in it: the page
reads them as it is asked for. Starts when a window was judged, features were published, a candidate was
registered or a version went live.

| task | what it does | when it fails |
|---|---|---|
| `write` | the document, in the place of the last one | clear it: safe |

Runbook: `docs/runbooks/overview_failed.md`.
"""


def build(use_case: UseCase) -> DAG:
    """The overview DAG of `use_case`."""
    news = (
        assets.judged(use_case)
        | assets.features(use_case)
        | assets.candidate(use_case)
        | assets.live_model(use_case)
    )
    with DAG(
        f"{use_case.name}_overview",
        description=f"What the page shows: {use_case.description}",
        doc_md=DOC,
        schedule=news,
        is_paused_upon_creation=False,
        **dag_arguments(use_case, "overview"),
    ) as dag:
        at = {"at": "{{ dag_run.run_after.isoformat() }}"}
        job_task(use_case, "write", "airloop.overview.write", at)
    check_first(dag)
    return dag


for _use_case in all_use_cases():
    globals()[f"{_use_case.name}_overview"] = build(_use_case)
