"""`<use_case>_override`: a rejected candidate, accepted by a person who says why, and registered."""

from __future__ import annotations

from airflow.sdk import DAG, Param, task

from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop_airflow import assets, gate
from airloop_airflow.dependencies import check_first
from airloop_airflow.forms import ask
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import dag_arguments

DOC = """
### Override

Accepts a candidate that its verdict rejected:
`airflow dags trigger {dag_id} --conf '{"run_id": "<MLflow run>", "by": "<name>", "reason": "<why>"}'`.
Started by hand only, by an approver where the deployment has some. Name and reason are on the verdict, the
model card, the MLflow run and in the audit log; the rules of the verdict stay as they are. The rollout's own
checks still apply.

| task | what it does | when it fails |
|---|---|---|
| `override` | writes down who accepts it and why; the Report button has the verdict | it says why |
| `register` | challenger in MLflow; starts `<use_case>_rollout` through its Asset | clear it |
| `tell` | says in Slack that there is a candidate | never by Slack's fault |

When to, and when not: `docs/runbooks/candidate_rejected.md`. Runbook: `docs/runbooks/override_failed.md`.
"""


def build(use_case: UseCase) -> DAG:
    """The override DAG of `use_case`."""
    dag_id = f"{use_case.name}_override"
    with DAG(
        dag_id,
        description=f"A rejected candidate, accepted by name: {use_case.description}",
        doc_md=DOC.replace("{dag_id}", dag_id),
        schedule=None,
        # A run that a person triggers on a paused DAG would wait for ever.
        is_paused_upon_creation=False,
        **dag_arguments(use_case, "override"),
    ) as dag:
        override = job_task(
            use_case,
            "override",
            "airloop.training.override",
            {
                "run-id": "{{ params.run_id }}",
                "by": "{{ params.by }}",
                "reason": "{{ params.reason }}",
                # Whoever types another's name is on record all the same.
                "who": "{{ dag_run.triggering_user_name or '' }}",
            },
            has_report=True,
        )
        register = job_task(
            use_case,
            "register",
            "airloop.training.register",
            {"evaluated": override.output},
            outlets=[assets.candidate(use_case)],
        )
        task(gate.tell_registered, task_id="tell")(register.output, override.output)
    check_first(dag)
    ask(
        dag,
        {
            "run_id": Param(
                type="string",
                pattern="^[0-9a-f]{32}$",
                title="MLflow run",
                description="the candidate's run; the verdict's page begins with it",
            ),
            "by": Param(
                type="string",
                minLength=1,
                title="Your name",
                description="who accepts the candidate; it is recorded",
            ),
            "reason": Param(
                type="string",
                minLength=1,
                title="Reason",
                description="why it may serve in spite of the failed rules; names no person of the data",
            ),
        },
    )
    return dag


for _use_case in all_use_cases():
    globals()[f"{_use_case.name}_override"] = build(_use_case)
