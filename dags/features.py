"""`<use_case>_features`: from the source to features, offline and online; daily, or for a range of days."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, XComArg, chain, task

from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop_airflow import assets, run_times
from airloop_airflow.dependencies import check_first
from airloop_airflow.forms import ask, days
from airloop_airflow.ingestion import ingest
from airloop_airflow.jobs import JobOperator, job_task
from airloop_airflow.policy import dag_arguments, schedule
from airloop_airflow.stale import mark_stale, rows_changed

DOC = """
### Features

Brings the days of the run from the source to the feature store: daily, when late records changed past days,
and by hand. A use case that reads the tables of another has no source: it follows whenever that one has
published. Each step replaces its interval, so a run can be stopped and repeated at any point.

| task | what it does | when it fails |
|---|---|---|
| `resolve_interval` | form, else changed days, else data interval, else yesterday | correct the dates |
| `ingest` | source to `raw`, each delivered record once | the source breaks its contract |
| `clean` | `raw` to `clean`, on an audit branch | |
| `audit` | Great Expectations on that branch; its Report button | `main` is untouched; see which and rows |
| `publish` | the audited rows become part of `main` | |
| `features` | feature tables for the interval and later days that look back on it; labels that mature | |
| `materialise` | Feast `apply`, then the interval into the online store | |
| `changed` | goes on only if days that were published before have other rows now | |
| `mark_stale` | marks the training sets and models that were made of the old rows | MLflow is down |
| `request_training` | if the champion is among them and the spec says so | |

Months of history are one run: give `start_date` and `end_date` (excluded). A backfill
(`airflow backfill create --dag-id {dag_id} --from-date ... --to-date ...`) may run beside the daily run.

Runbook: `docs/runbooks/features_failed.md`.
"""


def build(use_case: UseCase) -> DAG:
    """The features DAG of `use_case`."""
    dag_id = f"{use_case.name}_features"
    with DAG(
        dag_id,
        description=f"Source to audited features, daily: {use_case.description}",
        doc_md=DOC.replace("{dag_id}", dag_id),
        schedule=_when(use_case),
        **dag_arguments(use_case, "features"),
    ) as dag:
        interval = task(run_times.features_interval, task_id="resolve_interval")()
        span = {"start": interval["start"], "end": interval["end"]}
        features = job_task(use_case, "features", "spark_jobs.features", span)
        materialise = job_task(
            use_case, "materialise", "feature_repo.materialise", span, outlets=[assets.features(use_case)]
        )
        stale = mark_stale(use_case)
        if use_case.lender is None:
            publish = _published(use_case, span)
            changed = task.short_circuit(rows_changed, task_id="changed")(publish.output)
            chain(publish, features, materialise, changed, stale)
        else:
            chain(features, materialise, stale)
    check_first(dag)
    ask(dag, days())
    return dag


def _when(use_case: UseCase) -> AssetOrTimeSchedule | list[Asset]:
    if use_case.lender is not None:
        return [assets.features_of(use_case.lender)]
    return AssetOrTimeSchedule(
        timetable=schedule(use_case.schedules.features, timedelta(days=1)),
        assets=[assets.data_changed(use_case)],
    )


def _published(use_case: UseCase, span: dict[str, XComArg]) -> JobOperator:
    """The tasks that bring the span from the source to audited clean tables; the last one."""
    clean = job_task(use_case, "clean", "spark_jobs.clean", span, multiple_outputs=True)
    branch = {"branch": clean.output["branch"]}
    audit = job_task(use_case, "audit", "spark_jobs.audit", {**span, **branch}, has_report=True)
    publish = job_task(
        use_case, "publish", "airloop.lakehouse.publish", {**span, **branch, "audit": audit.output}
    )
    chain(ingest(use_case, span), clean, audit, publish)
    return publish


for _use_case in all_use_cases():
    globals()[f"{_use_case.name}_features"] = build(_use_case)
