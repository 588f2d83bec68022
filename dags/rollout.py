"""`<use_case>_rollout`: a registered candidate earns its place as the champion, or is unloaded."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, AssetOrTimeSchedule, Param, TriggerRule, chain

from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop_airflow import assets
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import dag_arguments, schedule

DOC = """
### Rollout

Starts when a candidate is registered, once a day for what was missed, and by hand for any `version`. Without
a version it takes the challenger, or the champion when there is none, which then changes nothing.

| task | what it does | when it fails |
|---|---|---|
| `infra_check` | verifies its signature, loads it, replays recorded requests | the candidate is unloaded |
| `promote` | label, audit record, alias `champion` | the candidate is unloaded; the champion keeps serving |
| `live` | announces the live model | |
| `abandon` | only after a failure: unloads the candidate | |

To roll back, trigger it with the earlier `version` and a `reason`.
Runbook: `docs/runbooks/rollout_failed.md`.
"""


def build(use_case: UseCase) -> DAG:
    """The rollout DAG of `use_case`."""
    with DAG(
        f"{use_case.name}_rollout",
        description=f"Challenger to champion: {use_case.description}",
        doc_md=DOC,
        schedule=AssetOrTimeSchedule(
            timetable=schedule(use_case.schedules.rollout, timedelta(days=1)),
            assets=[assets.candidate(use_case)],
        ),
        **dag_arguments(use_case, "rollout"),
        params={
            "version": Param(
                None,
                type=["null", "integer"],
                minimum=1,
                title="Model version",
                description="number in the registry; empty for the challenger",
            ),
            "reason": Param(
                "",
                type="string",
                title="Reason",
                description="for the record of what served when; above all when going back",
            ),
        },
    ) as dag:
        asked = {"version": "{{ params.version or '' }}"}
        infra_check = job_task(use_case, "infra_check", "serving.infra_check", asked, multiple_outputs=True)
        promote = job_task(
            use_case,
            "promote",
            "serving.promote",
            {
                "version": infra_check.output["version"],
                "reason": "{{ params.reason }}",
                "who": "{{ dag_run.triggering_user_name or '' }}",
            },
        )
        # This leaf fails with them: a run that abandoned its candidate in good order is still a failed run.
        live = EmptyOperator(task_id="live", outlets=[assets.live_model(use_case)])
        abandon = job_task(use_case, "abandon", "serving.abandon", asked, trigger_rule=TriggerRule.ONE_FAILED)
        chain(infra_check, promote, [live, abandon])
        chain(infra_check, abandon)
    return dag


for _use_case in all_use_cases():
    globals()[f"{_use_case.name}_rollout"] = build(_use_case)
