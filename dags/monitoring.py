"""`<use_case>_monitoring`: what is asked and answered, compared with the champion's own windows; hourly."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, chain, task

from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import UseCase
from airloop_airflow import assets, monitoring, run_times
from airloop_airflow.dependencies import check_first
from airloop_airflow.forms import ask, optional_text
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import dag_arguments, schedule

DOC = """
### Monitoring

Counts the hour's predictions on Spark and compares the day that ends with it with the champion's training
window (its features) and test window (its predictions), and with the same day a week before. A feature is an
alarm when it drifted in enough of the last windows that do not overlap; the use case's spec says how far, how
surely and how often. Once labels are in, the champion's answers are held against those on its test days.
Whoever looks after the model is told when an alarm begins and when it is over, and `<use case>_retraining`
starts through its Asset.

The trigger form takes a span of the past: every window that ends in it is judged again, against the version
that was the champion at its end.

| task | what it does | when it fails |
|---|---|---|
| `resolve_hours` | form, else the hour before the run | correct the times |
| `reference` | the champion, and what it is compared with; skipped without one | its run has no profile |
| `count` | hours to `monitoring.<use case>_counts` | clear it: safe |
| `judge` | windows to `monitoring.<use case>_windows`, features to `monitoring.<use case>_drift` | clear it |
| `tell` | says in Slack what began and what is over | never by Slack's fault |
| `count_scores` | answers with labels to `monitoring.<use case>_scores`; skipped without new | clear it |
| `judge_quality` | days to `monitoring.<use case>_quality`, the champion's against its test days | clear it |
| `tell_quality` | says in Slack that the champion decays | never by Slack's fault |

Runbook: `docs/runbooks/monitoring_failed.md`; alarms: `docs/runbooks/drift.md` and `docs/runbooks/decay.md`.
"""


def build(use_case: UseCase) -> DAG:
    """The monitoring DAG of `use_case`."""
    with DAG(
        f"{use_case.name}_monitoring",
        description=f"Drift of features and predictions: {use_case.description}",
        doc_md=DOC,
        schedule=schedule(use_case.schedules.monitoring, timedelta(hours=1)),
        is_paused_upon_creation=False,
        **dag_arguments(use_case, "monitoring"),
    ) as dag:
        hours = task(run_times.hours, task_id="resolve_hours")()
        span = {"start": hours["start"], "end": hours["end"]}
        now = {"at": "{{ dag_run.run_after.isoformat() }}"}
        watched = job_task(
            use_case,
            "reference",
            "airloop.monitoring.reference",
            {"end": hours["end"]},
            multiple_outputs=True,
        )
        version = {"version": watched.output["version"], "run-id": watched.output["run_id"]}
        count = job_task(use_case, "count", "spark_jobs.count_predictions", {**span, **version})
        judge = job_task(use_case, "judge", "airloop.monitoring.judge", {**span, **version, **now})
        # Each by itself: drift waits for no labels, and quality is skipped for as long as no new one came in.
        judged = [assets.judged(use_case)]
        told = task(monitoring.tell, task_id="tell", outlets=judged)(judge.output)
        chain(watched, count, judge, told)
        scores = job_task(
            use_case,
            "count_scores",
            "spark_jobs.count_scores",
            {**span, **version},
        )
        quality = job_task(
            use_case, "judge_quality", "airloop.monitoring.judge_quality", {**span, **version, **now}
        )
        told_quality = task(monitoring.tell_quality, task_id="tell_quality", outlets=judged)(quality.output)
        # One after the other: both are Spark's, and a laptop has two cores.
        chain(count, scores, quality, told_quality)
    check_first(dag)
    ask(
        dag,
        {
            name: optional_text(
                format="date-time",
                title=title,
                description=description,
            )
            for name, title, description in (
                ("start", "From", "whole hour, UTC; empty for the hour before the end"),
                ("end", "Until", "whole hour, UTC; empty for the last one"),
            )
        },
    )
    return dag


for _use_case in all_use_cases():
    if _use_case.is_online:
        globals()[f"{_use_case.name}_monitoring"] = build(_use_case)
