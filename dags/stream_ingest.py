"""`stream_ingest`: what the streams brought since the last run, into the raw tables; hourly."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param, task

from airloop.connections import PSEUDONYM_KEY
from airloop.use_cases.catalogue import all_use_cases
from airloop.use_cases.spec import Stream, UseCase
from airloop_airflow import assets
from airloop_airflow.changed_days import announce_late_days
from airloop_airflow.dependencies import check_first
from airloop_airflow.forms import ask
from airloop_airflow.jobs import JobOperator, job_task
from airloop_airflow.policy import owned_by, platform_arguments, schedule

DOC = """
### Streams

Lands each stream of each use case up to its tip, every message exactly once, in the raw tables that batches
land in too. A run can be stopped and repeated at any point. A stream whose connection is not defined is
skipped: define it (Admin, Connections) to switch it on.

| task | what it does | when it fails |
|---|---|---|
| `<use case>_<stream>` | messages to `raw`, malformed ones to `raw.quarantine` | see below |
| `<use case>_late_days` | has past days that received records built again | |

*Messages gone that were never landed*: the broker's retention passed during an outage. Deliver the days again
from a batch source (the features DAG), then run once with `accept_loss`. *Another run at work*: a continuous
job lands this stream; stop it, or pause this DAG. *Another topic of the same name*: give the stream another
name in the spec.

Runbook: `docs/runbooks/ingest_failed.md`. Adding a stream: `docs/how-to/add-a-stream.md`.
"""


def ingest_task(use_case: UseCase, stream: Stream) -> JobOperator:
    """The task that lands `stream`."""
    feeds = [use_case.feed(name) for name in stream.topics]
    hashed = any(feed.has_hashed_columns for feed in feeds)
    return job_task(
        use_case,
        f"{use_case.name}_{stream.name}",
        "spark_jobs.stream_ingest",
        {"stream": stream.name, "accept-loss": "{{ 'yes' if params.accept_loss else '' }}"},
        connections=(stream.connection, *((PSEUDONYM_KEY,) if hashed else ())),
        skip_without_connections=True,
    )


def build(use_cases: tuple[UseCase, ...]) -> DAG:
    """The DAG of all streams of `use_cases`."""
    with DAG(
        "stream_ingest",
        description="Streams into the raw tables, exactly once, hourly",
        doc_md=DOC,
        schedule=schedule("0 * * * *", timedelta(hours=1)),
        **platform_arguments("ingest"),
    ) as dag:
        for use_case in use_cases:
            asset = assets.data_changed(use_case)
            ingests = [ingest_task(use_case, stream) for stream in use_case.streams]
            task(
                announce_late_days,
                task_id=f"{use_case.name}_late_days",
                outlets=[asset],
                trigger_rule="none_failed_min_one_success",
                **owned_by(use_case),
            )(asset, [ingest.output for ingest in ingests])
    check_first(dag)
    ask(
        dag,
        {
            "accept_loss": Param(
                False,
                type="boolean",
                title="Accept loss",
                description="go on although messages are gone from the broker that were never landed",
            ),
        },
    )
    return dag


_streaming = tuple(use_case for use_case in all_use_cases() if use_case.streams)
if _streaming:
    stream_ingest = build(_streaming)
