"""`predictions`: what the gateways answered, from their spool into its table; hourly."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airloop.connections import PREDICTION_LOG
from airloop_airflow.dependencies import check_first
from airloop_airflow.jobs import job_task
from airloop_airflow.policy import platform_arguments, schedule

DOC = """
### Predictions

Takes every prediction that the gateways wrote to their spool into the Iceberg table `serving.predictions`,
each exactly once. Nothing that serves waits for it; until it has run, the records lie in the spool, or, where
the connection `airloop_prediction_log` is defined, in Kafka.

| task | what it does | when it fails |
|---|---|---|
| `land` | records to `serving.predictions`; files that the table has all of go | clear it: safe |

Runbook: `docs/runbooks/predictions_failed.md`. Reading the table: `docs/how-to/find-a-prediction.md`.
"""


def build() -> DAG:
    """The DAG for the predictions of all use cases, which share a spool and a table."""
    with DAG(
        "predictions",
        description="Predictions from the gateways' spool into their table, exactly once, hourly",
        doc_md=DOC,
        schedule=schedule("10 * * * *", timedelta(hours=1)),
        is_paused_upon_creation=False,
        **platform_arguments("predictions"),
    ) as dag:
        job_task(
            None,
            "land",
            "airloop.prediction_log.land",
            {},
            timeout=timedelta(minutes=30),
            optional_connections=[PREDICTION_LOG],
        )
    check_first(dag)
    return dag


predictions = build()
