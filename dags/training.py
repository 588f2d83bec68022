"""`<use_case>_training`: a candidate from a pinned training set, judged, and registered if it earns it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, Param, TriggerRule, XComArg, chain, task

from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop.use_cases.training_policy import CrossValidation, Tuning
from airloop_airflow import assets, cost, gate, optional_steps, retraining, run_times
from airloop_airflow.dependencies import check_first
from airloop_airflow.forms import ask, optional_text
from airloop_airflow.jobs import JobOperator, job_task, mapped_job_task
from airloop_airflow.policy import dag_arguments, interval_of, schedule

DOC = """
### Training

Trains a candidate on what was known at `as_of` (a UTC midnight) and registers it as the challenger if its
verdict accepts it. Starts weekly, when a retrain request is raised, and by hand.

| task | what it does | when it fails |
|---|---|---|
| `resolve_as_of` | form or `--conf`, else the data interval's end, else the day | correct the date |
| `check_budget` | where the spec has a budget: whether it has room | see `budget.md` |
| `training_set` | point-in-time join by Feast, pinned by a tag | it names the days that miss features |
| `study`, `trial`, `tuned` | with `tune`: a search for better parameters | a failed trial fails no run |
| `train` | TensorFlow; the model and its metrics are an MLflow run | |
| `folds`, `fold`, `cross_validated` | with `cross_validate`: the parameters, measured over several times | |
| `evaluate` | baseline, champion on the same rows, verdict document | |
| `gate` | ends the run here when the verdict rejects | see `candidate_rejected.md` |
| `register` | challenger in MLflow; starts `<use_case>_rollout` through its Asset | |
| `tell` | says in Slack that there is a candidate, and why | never by Slack's fault |

Runbook: `docs/runbooks/training_failed.md`.
"""


def _count(title: str, unit: str) -> Param:
    return Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title=title,
        description=f"{unit}; empty for the spec's",
    )


def _switch(title: str, description: str) -> Param:
    return Param(False, type="boolean", title=title, description=description)


TUNING_PARAMS = {
    "tune": _switch(
        "Tune the parameters", "search for better ones first; a trial takes as long as a training"
    ),
    "trials": _count("Trials of the tuning", "how many"),
    "minutes": _count("Time of the tuning", "minutes after which no trial starts"),
}
CROSS_VALIDATION_PARAMS = {
    "cross_validate": _switch(
        "Cross-validate", "train and measure on several times before the test window too"
    )
}

BUDGET_PARAMS = {"whatever_it_costs": _switch("Whatever it costs", "train beyond the budget of the spec too")}


def _wanted(param: str) -> XComArg:
    """Skips the tasks after it, but none after those by itself, unless the run's `param` is on."""
    step = task.short_circuit(
        optional_steps.is_wanted, task_id=f"wants_to_{param}", ignore_downstream_trigger_rules=False
    )
    return step(param)


def _tuned(use_case: UseCase, tuning: Tuning, pinned: Mapping[str, Any]) -> Mapping[str, Any]:
    """Flags with the parameters that a study finds; none where it is skipped."""
    study = job_task(
        use_case,
        "study",
        "airloop.training.study",
        {**pinned, "trials": "{{ params.trials or '' }}", "minutes": "{{ params.minutes or '' }}"},
        each="slots",
    )
    chain(_wanted("tune"), study)
    asked = {"study": study.output["name"]}
    trial = mapped_job_task(
        use_case,
        "trial",
        "airloop.training.trial",
        {**pinned, **asked},
        flag="slot",
        values=study.output,
        at_once=tuning.parallel_trials,
        timeout=timedelta(hours=12),
    )
    # A trial may fail, or all of them: then `tuned` says so. It is skipped with the study.
    tuned = job_task(
        use_case,
        "tuned",
        "airloop.training.tuned",
        asked,
        trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS,
        has_report=True,
    )
    chain(trial, tuned)
    return {"parameters": tuned.output}


def _cross_validated(
    use_case: UseCase,
    policy: CrossValidation,
    pinned: Mapping[str, Any],
    parameters: Mapping[str, Any],
    train: JobOperator,
) -> None:
    folds = job_task(
        use_case,
        "folds",
        "airloop.training.folds",
        {**pinned, **parameters},
        each="folds",
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
    )
    # After the training: on one machine they would take each other's processors.
    chain([_wanted("cross_validate"), train], folds)
    given = {**pinned, "parameters": folds.output["tuned"]}
    fold = mapped_job_task(
        use_case,
        "fold",
        "airloop.training.fold",
        given,
        flag="fold",
        values=folds.output,
        at_once=policy.parallel_folds,
        timeout=timedelta(hours=12),
    )
    job_task(
        use_case, "cross_validated", "airloop.training.cross_validated", {**given, "measured": fold.output}
    )


def _schedule(use_case: UseCase) -> AssetOrTimeSchedule | list[Asset]:
    requests, cron = [assets.retrain_request(use_case)], use_case.schedules.training
    if cron is None:
        return requests
    return AssetOrTimeSchedule(timetable=schedule(cron, interval_of(cron)), assets=requests)


def _form(use_case: UseCase) -> dict[str, Param]:
    """What the trigger form asks."""
    return {
        "as_of": optional_text(
            format="date",
            title="As of",
            description="UTC day whose midnight to look back from; empty for the run's",
        ),
        "reason": optional_text(
            title="Reason",
            description="why, for the record; empty for that of the request",
        ),
        "train_days": _count("Training window", "days"),
        "validation_days": _count("Validation window", "days"),
        "test_days": _count("Test window", "days"),
        **(TUNING_PARAMS if use_case.training.tuning else {}),
        **(CROSS_VALIDATION_PARAMS if use_case.training.cross_validation else {}),
        **(BUDGET_PARAMS if use_case.budget else {}),
    }


def build(use_case: UseCase) -> DAG:
    """The training DAG of `use_case`."""
    policy = use_case.training
    with DAG(
        f"{use_case.name}_training",
        description=f"A candidate, judged and registered: {use_case.description}",
        doc_md=DOC,
        schedule=_schedule(use_case),
        user_defined_macros={"why": retraining.why},
        **dag_arguments(use_case, "training"),
    ) as dag:
        training_set = job_task(
            use_case,
            "training_set",
            "spark_jobs.training_set",
            {
                "as-of": task(run_times.as_of, task_id="resolve_as_of")(),
                "train-days": "{{ params.train_days or '' }}",
                "validation-days": "{{ params.validation_days or '' }}",
                "test-days": "{{ params.test_days or '' }}",
            },
        )
        if use_case.budget:
            checked = job_task(
                use_case,
                "check_budget",
                "airloop.cost.check_budget",
                {
                    # Runs wait for one another: what those before spent meanwhile counts.
                    "at": "{{ ti.start_date.isoformat() }}",
                    "whatever-it-costs": "{{ params.whatever_it_costs | lower }}",
                },
                on_failure_callback=cost.alert_on_refusal,
            )
            task(cost.tell_before, task_id="tell_budget")(checked.output)
            chain(checked, training_set)
        pinned = {"training-set": training_set.output}
        parameters = _tuned(use_case, policy.tuning, pinned) if policy.tuning else {}
        train = job_task(
            use_case,
            "train",
            "airloop.training.train",
            {
                **pinned,
                **parameters,
                "requested-because": "{{ params.reason or why(triggering_asset_events) }}",
            },
            timeout=timedelta(hours=12),
            # Without a study its result is skipped.
            trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        )
        if policy.cross_validation:
            _cross_validated(use_case, policy.cross_validation, pinned, parameters, train)
        evaluate = job_task(
            use_case,
            "evaluate",
            "airloop.training.evaluate",
            {**pinned, "candidate": train.output},
            has_report=True,
        )
        judged = task.short_circuit(gate.accepted, task_id="gate")(evaluate.output)
        register = job_task(
            use_case,
            "register",
            "airloop.training.register",
            {"evaluated": evaluate.output},
            outlets=[assets.candidate(use_case)],
        )
        chain(judged, register)
        task(gate.tell_registered, task_id="tell")(register.output, evaluate.output)
    check_first(dag)
    ask(dag, _form(use_case))
    return dag


for _use_case in all_use_cases():
    globals()[f"{_use_case.name}_training"] = build(_use_case)
