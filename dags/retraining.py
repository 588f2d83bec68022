"""`<use_case>_retraining`: what monitoring found leads to a training, or to the reason why not."""

from __future__ import annotations

from airflow.sdk import DAG, chain, task

from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop_airflow import assets, retraining
from airloop_airflow.dependencies import check_first
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import dag_arguments

DOC = """
### Retraining

Starts whenever monitoring has judged a window, and by hand. Drift, decay or many new events are causes; a
cool-down, a budget of trainings (and of money) a week and a stop after candidates that did not win speak
against. The use case's spec (`retraining`) has the limits, and a person can silence a cause
(`<use_case>_silence`).

| task | what it does | when it fails |
|---|---|---|
| `decide` | causes, and what speaks against, to `monitoring.<use case>_retraining` | clear it: safe |
| `tell` | says in Slack that one is requested, or that a person has to see to it | never by Slack's fault |
| `wanted` | ends the run here when none is requested | |
| `request_training` | starts `<use_case>_training` through its Asset, saying why | clear it |

Runbook: `docs/runbooks/retraining_failed.md`; what to do about a request: `docs/runbooks/retraining.md`.
"""


def build(use_case: UseCase) -> DAG:
    """The retraining DAG of `use_case`."""
    request = assets.retrain_request(use_case)
    with DAG(
        f"{use_case.name}_retraining",
        description=f"Drift and decay lead to a new model: {use_case.description}",
        doc_md=DOC,
        schedule=[assets.judged(use_case)],
        is_paused_upon_creation=False,
        **dag_arguments(use_case, "retraining"),
    ) as dag:
        decided = job_task(
            use_case,
            "decide",
            "airloop.retraining.decide",
            {"at": "{{ dag_run.run_after.isoformat() }}"},
            multiple_outputs=True,
        )
        task(retraining.tell, task_id="tell")(decided.output)
        wanted = task.short_circuit(retraining.wanted, task_id="wanted")(decided.output)
        requested = task(retraining.request, task_id="request_training", outlets=[request])(
            request, decided.output["said"]
        )
        chain(wanted, requested)
    check_first(dag)
    return dag


for _use_case in all_use_cases():
    if _use_case.is_online:
        globals()[f"{_use_case.name}_retraining"] = build(_use_case)
