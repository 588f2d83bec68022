"""`<use_case>_rollback`: clean tables set back to before a run, and what was made of the data since."""

from __future__ import annotations

from airflow.sdk import DAG, Param, chain, task

from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop_airflow import assets, run_times
from airloop_airflow.dependencies import check_first
from airloop_airflow.forms import ask, optional_text
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import dag_arguments
from airloop_airflow.stale import mark_stale

DOC = """
### Rollback

Takes back what a run published: `airflow dags trigger {dag_id} --conf '{"before_run": "<run id>"}'`.
Started by hand only. Without dates the tables go back as a whole, later runs included; with dates only those
days do. What was taken back is kept under a tag. `dry_run` lists the same without doing it.

| task | what it does | when it fails |
|---|---|---|
| `roll_back` | tables to before the run; lists the features, training sets, models made since | see below |
| `confirmed` | ends a dry run here | |
| `features` | features of the stale days, computed again | clear it: the tables are back already |
| `materialise` | Feast's online store, from those | |
| `mark_stale` | marks the training sets and models that saw what was taken back | MLflow is down |
| `request_training` | if the champion is among them and the spec says so | |

*That run published nothing*: the message lists runs that did. *It expired*: the retention of the spec has
passed; have the source deliver the days again and run `features` over them. Runs of past days that come later
publish what the raw tables hold then: mend the source first, or the same rows come back.

How to: `docs/how-to/republish-and-roll-back.md`. Runbook: `docs/runbooks/rollback_failed.md`.
"""


def build(use_case: UseCase) -> DAG:
    """The rollback DAG of `use_case`."""
    dag_id = f"{use_case.name}_rollback"
    with DAG(
        dag_id,
        description=f"Clean data back to before a run: {use_case.description}",
        doc_md=DOC.replace("{dag_id}", dag_id),
        schedule=None,
        # A run that on-call triggers on a paused DAG would wait for ever.
        is_paused_upon_creation=False,
        **dag_arguments(use_case, "rollback"),
    ) as dag:
        back = job_task(
            use_case,
            "roll_back",
            "airloop.versions.rollback",
            {
                "before-run": "{{ params.before_run }}",
                "start": "{{ params.start_date or '' }}",
                "end": "{{ params.end_date or '' }}",
                "tables": "{{ params.tables or '' }}",
                "dry-run": "{{ params.dry_run | lower }}",
            },
            multiple_outputs=True,
        )
        confirmed = task.short_circuit(run_times.is_no_dry_run, task_id="confirmed")()
        span = {"start": back.output["start"], "end": back.output["end"]}
        features = job_task(use_case, "features", "spark_jobs.features", span)
        materialise = job_task(
            use_case, "materialise", "feature_repo.materialise", span, outlets=[assets.features(use_case)]
        )
        chain(back, confirmed, features, materialise, mark_stale(use_case))
    check_first(dag)
    ask(
        dag,
        {
            "before_run": Param(
                type="string",
                minLength=1,
                title="Before run",
                description="run id of the features DAG, or <dag_id>/<run_id>; what it published goes",
            ),
            "start_date": optional_text(
                format="date",
                title="Start date",
                description="only the rows from this day on (UTC); empty for whole tables",
            ),
            "end_date": optional_text(
                format="date",
                title="End date",
                description="day after the last one; empty for a single day",
            ),
            "tables": optional_text(
                title="Tables",
                description="only these, comma-separated, such as clean.<table>; empty for all",
            ),
            "dry_run": Param(False, type="boolean", title="Dry run", description="only say what follows"),
        },
    )
    return dag


for _use_case in all_use_cases():
    # Published data go back where they are published.
    if _use_case.own_clean_tables:
        globals()[f"{_use_case.name}_rollback"] = build(_use_case)
