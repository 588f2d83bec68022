"""`<use_case>_training`: a candidate from a pinned training set, judged, and registered if it earns it."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, AssetOrTimeSchedule, Param, chain, task

from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop_airflow import assets, gate, run_times
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import dag_arguments, schedule

DOC = """
### Training

Trains a candidate on what was known at `as_of` (a UTC midnight) and registers it as the challenger if its
verdict accepts it. Starts weekly, when a retrain request is raised, and by hand.

| task | what it does | when it fails |
|---|---|---|
| `resolve_as_of` | form or `--conf`, else the data interval's end, else the day | correct the date |
| `training_set` | point-in-time join by Feast, pinned by a tag | it names the days that miss features |
| `train` | TensorFlow; the model and its metrics are an MLflow run | |
| `evaluate` | baseline, champion on the same rows, verdict document | |
| `gate` | ends the run here when the verdict rejects | see `candidate_rejected.md` |
| `register` | challenger in MLflow; starts `<use_case>_rollout` through its Asset | |

Runbook: `docs/runbooks/training_failed.md`.
"""


def _days(title: str) -> Param:
    return Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title=title,
        description="days; empty for the spec's",
    )


def build(use_case: UseCase) -> DAG:
    """The training DAG of `use_case`."""
    with DAG(
        f"{use_case.name}_training",
        description=f"A candidate, judged and registered: {use_case.description}",
        doc_md=DOC,
        schedule=AssetOrTimeSchedule(
            timetable=schedule(use_case.schedules.training, timedelta(days=7)),
            assets=[assets.retrain_request(use_case)],
        ),
        **dag_arguments(use_case, "training"),
        params={
            "as_of": Param(
                None,
                type=["null", "string"],
                format="date",
                title="As of",
                description="UTC day whose midnight to look back from; empty for the run's",
            ),
            "train_days": _days("Training window"),
            "validation_days": _days("Validation window"),
            "test_days": _days("Test window"),
        },
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
        pinned = {"training-set": training_set.output}
        train = job_task(use_case, "train", "airloop.training.train", pinned, timeout=timedelta(hours=12))
        evaluate = job_task(
            use_case, "evaluate", "airloop.training.evaluate", {**pinned, "candidate": train.output}
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
    return dag


for _use_case in all_use_cases():
    globals()[f"{_use_case.name}_training"] = build(_use_case)
