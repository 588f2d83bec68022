"""`<use_case>_experiment`: two versions side by side for a fixed time, and what the difference is."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param, TriggerRule, chain

from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop_airflow.dependencies import check_first
from airloop_airflow.forms import ask
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import dag_arguments
from airloop_airflow.rollout import looking_task

DOC = """
### Experiment

An A/B test: a share of the units (a flight, a customer; the spec's `sticky_by`) is answered by `version`, the
others by the champion, the same unit always by the same. Started by hand:
`airflow dags trigger {dag_id} --conf '{"name": "wider", "version": 4, "share": 0.5, "horizon_hours": 168}'`.

| task | what it does | when it fails |
|---|---|---|
| `infra_check` | as in the rollout | the version is unloaded |
| `experiment` | begins it, looks for harm alone, ends it; the result is in its report | ended early |
| `abandon` | only after a failure: unloads the version | |
| `ended` | the experiment went to its end | |

The horizon is fixed before, and the difference is computed once, at the end. Canaries wait for it. To end it
early, trigger the rollout with the action `rollback`. Ended so, it has no result.

How to: `docs/how-to/compare-two-versions.md`. Runbook: `docs/runbooks/experiment_failed.md`.
"""


def build(use_case: UseCase) -> DAG:
    """The experiment DAG of `use_case`."""
    dag_id = f"{use_case.name}_experiment"
    with DAG(
        dag_id,
        description=f"Two versions side by side: {use_case.description}",
        doc_md=DOC.replace("{dag_id}", dag_id),
        schedule=None,
        is_paused_upon_creation=False,
        **dag_arguments(use_case, "experiment"),
    ) as dag:
        asked = {"version": "{{ params.version }}"}
        infra_check = job_task(use_case, "infra_check", "serving.infra_check", asked)
        experiment = looking_task(
            use_case,
            "experiment",
            "serving.experiment",
            {
                **asked,
                "name": "{{ params.name }}",
                "share": "{{ params.share }}",
                "horizon-hours": "{{ params.horizon_hours }}",
            },
        )
        abandon = job_task(use_case, "abandon", "serving.abandon", asked, trigger_rule=TriggerRule.ONE_FAILED)
        chain(infra_check, experiment)
        chain([infra_check, experiment], abandon)
        # This leaf fails with them: a run that unloaded its version in good order is still a failed run.
        chain(experiment, EmptyOperator(task_id="ended"))
    check_first(dag)
    ask(
        dag,
        {
            "name": Param(
                type="string",
                pattern="^[a-z][a-z0-9_-]{0,62}$",
                title="Name",
                description="of the experiment; another name or run draws the units anew",
            ),
            "version": Param(
                type="integer", minimum=1, title="Version B", description="number in the registry"
            ),
            "share": Param(
                0.5,
                type="number",
                exclusiveMinimum=0,
                exclusiveMaximum=1,
                title="Share of B",
                description="of the units",
            ),
            "horizon_hours": Param(
                168,
                type="number",
                exclusiveMinimum=0,
                title="Horizon in hours",
                description="when it ends; whole weeks, so that each weekday counts the same",
            ),
        },
    )
    return dag


for _use_case in all_use_cases():
    if _use_case.is_online:
        globals()[f"{_use_case.name}_experiment"] = build(_use_case)
