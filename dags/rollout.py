"""`<use_case>_rollout`: a registered candidate earns its traffic step by step, or goes; and the way back."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, AssetOrTimeSchedule, Param, TriggerRule, chain, task

from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop_airflow import assets
from airloop_airflow.approval import APPROVED_BY, TASK_ID, PersonApproves
from airloop_airflow.dependencies import check_first
from airloop_airflow.forms import ask, optional_text
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import dag_arguments, schedule
from airloop_airflow.rollout import page_unless_rolled_back, stage_task, stages_of, tell_rollback

DOC = """
### Rollout

Starts when a candidate is registered, once a day for what was missed, and by hand for any `version`. Without
a version it takes the challenger, or the champion when there is none (or it was rolled back once), which then
changes nothing.

| task | what it does | when it fails |
|---|---|---|
| `infra_check` | signature; on a server of its own: requests, latency, memory | the candidate is unloaded |
| `shadow` | copies of all traffic; no client sees an answer | rolled back, see its report |
| `canary_<n>` | <n>% of the clients | rolled back, see its report |
| `stand_by`, `approve`, `confirm` | where the spec asks: only copies till a person says yes | unloaded |
| `promote` | label, audit record, alias `champion` | the candidate is unloaded; the champion keeps serving |
| `live` | announces the live model | |
| `watch` | the version before gets copies; the new one must hold | the version before serves again |
| `nothing_beside` | the first version, or the champion itself: no stages | |
| `abandon` | only after a failure: unloads the candidate | |

Going back by hand is told by `tell_rollback`, what a stage decides by the stage itself.

Every stage looks at error rate, latency, shift of the predictions and missing features beside the champion,
and at quality as labels come in. It waits in between without a worker. Its report has the numbers; so have
Slack and the audit log. The first version of a model has nothing beside it and is promoted at once.

To go back: `airflow dags trigger {dag_id} --conf '{"action": "rollback", "reason": "..."}'`. It ends the
experiment or the rollout that is under way, or else gives the traffic to the version before, or to `version`.

Runbooks: `docs/runbooks/rollout_failed.md`, `docs/runbooks/candidate_rolled_back.md`.
"""
AT_ONCE = 4
"""Runs: going back must not wait for a rollout, nor a newer candidate for an older one. Their jobs see to it
that one rollout has the traffic."""

FORM = {
    "action": Param(
        "roll_out",
        enum=["roll_out", "rollback"],
        title="Action",
        description="roll a candidate out, or go back to the version before at once",
    ),
    "version": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title="Model version",
        description="number in the registry; empty for the challenger, or for the version before",
    ),
    "reason": optional_text(
        title="Reason",
        description="for the record of what served when; above all when going back",
    ),
    "bake_minutes": Param(
        None,
        type=["null", "number"],
        minimum=0,
        title="Bake minutes",
        description="how long each stage lasts at least; empty for the spec's",
    ),
}


def build(use_case: UseCase) -> DAG:
    """The rollout DAG of `use_case`."""
    dag_id = f"{use_case.name}_rollout"
    with DAG(
        dag_id,
        description=f"Challenger to champion: {use_case.description}",
        doc_md=DOC.replace("{dag_id}", dag_id),
        schedule=AssetOrTimeSchedule(
            timetable=schedule(use_case.schedules.rollout, timedelta(days=1)),
            assets=[assets.candidate(use_case)],
        ),
        **(dag_arguments(use_case, "rollout") | {"max_active_runs": AT_ONCE}),
    ) as dag:
        asked = {"version": "{{ params.version or '' }}"}
        who = "{{ dag_run.triggering_user_name or '' }}"
        infra_check = job_task(use_case, "infra_check", "serving.infra_check", asked, multiple_outputs=True)
        version = infra_check.output["version"]
        staged = {
            "version": version,
            "bake-seconds": "{{ params.bake_minutes * 60 if params.bake_minutes is not none else '' }}",
        }
        roll_back = job_task(
            use_case,
            "roll_back",
            "serving.roll_back",
            {**asked, "reason": "{{ params.reason or '' }}", "who": who},
            outlets=[assets.live_model(use_case)],
        )

        task(tell_rollback, task_id="tell_rollback")(roll_back.output)

        @task.branch
        def action(params: dict[str, str] | None = None) -> str:
            return "roll_back" if (params or {}).get("action") == "rollback" else "infra_check"

        @task.branch
        def compare(version: int, champion: int | None) -> str:
            beside = use_case.is_online and champion not in (None, version)
            return "shadow" if beside else "nothing_beside"

        compared = compare(version, infra_check.output["champion"])
        nothing_beside = EmptyOperator(task_id="nothing_beside")
        stages = [stage_task(use_case, stage, staged) for stage in stages_of(use_case)]
        promote = job_task(
            use_case,
            "promote",
            "serving.promote",
            # By template: a dependency on the check would be the one success that promotes.
            {
                "version": "{{ ti.xcom_pull(task_ids='infra_check')['version'] }}",
                "reason": "{{ params.reason or '' }}",
                "who": who,
                "approved-by": APPROVED_BY if use_case.rollout.approval else "",
            },
            trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        )
        # This leaf fails with them: a run that abandoned its candidate in good order is still a failed run.
        live = EmptyOperator(task_id="live", outlets=[assets.live_model(use_case)])
        # The version that was checked, for by now another may be the challenger.
        checked = "{{ (ti.xcom_pull(task_ids='infra_check') or {}).get('version') or params.version or '' }}"
        abandon = job_task(
            use_case,
            "abandon",
            "serving.abandon",
            {"version": checked},
            trigger_rule=TriggerRule.ONE_FAILED,
        )
        last = stages[-1]
        if use_case.rollout.approval:
            # While a person takes their time nobody looks, so no client may depend on the candidate; what it
            # did meanwhile is looked at before it is promoted.
            stand_by, confirm = (
                stage_task(use_case, "shadow", {**staged, "bake-seconds": 0}, task_id=task_id)
                for task_id in ("stand_by", "confirm")
            )
            approve = PersonApproves(
                task_id=TASK_ID,
                subject=f"{use_case.name}: make version {{{{ ti.xcom_pull('infra_check')['version'] }}}} "
                "the champion?",
                body="{{ ti.xcom_pull('" + stages[-1].task_id + "')['reason'] }}",
                fail_on_reject=True,
                # People take days. The default for tasks would be taken for theirs.
                execution_timeout=None,
                retries=0,
                on_failure_callback=page_unless_rolled_back,
            )
            chain(stages[-1], stand_by, approve, confirm)
            stages += [stand_by, approve, confirm]
            last = confirm
        chain(action(), [infra_check, roll_back])
        chain(*stages)
        chain(infra_check, compared, [stages[0], nothing_beside])
        # Of these two one succeeds: a candidate that was superseded in a stage is not promoted either.
        chain([nothing_beside, last], promote, live)
        if use_case.is_online:
            chain(promote, stage_task(use_case, "watch", staged))
        chain([infra_check, *stages, promote], abandon)
    check_first(dag)
    ask(dag, FORM)
    return dag


for _use_case in all_use_cases():
    globals()[f"{_use_case.name}_rollout"] = build(_use_case)
