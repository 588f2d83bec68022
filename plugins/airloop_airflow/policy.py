"""What every task and DAG of Airloop has in common: owner, retries with back-off, alert, tags.

Belongs here: the defaults that the policy tests hold all DAGs to. Does not belong here: one DAG's wiring.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable

from airloop.use_cases.spec import UseCase
from airloop_airflow.alerts import alert_on_failure


def default_args(use_case: UseCase) -> dict[str, Any]:
    """Arguments of every task."""
    return {
        "owner": use_case.owner,
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=10),
        "execution_timeout": timedelta(minutes=10),
        "on_failure_callback": alert_on_failure,
    }


def dag_arguments(use_case: UseCase, kind: str) -> dict[str, Any]:
    """Arguments of every DAG; `kind` is a tag too, for the UI's filter."""
    return {
        "catchup": False,
        "max_active_runs": 1,
        "default_args": default_args(use_case),
        "tags": ["airloop", use_case.name, kind],
    }


def schedule(cron: str, interval: timedelta) -> CronTriggerTimetable:
    """Runs at each tick of `cron` (UTC) over the `interval` before it, never for a tick already past.

    The zero allowance matters: by default a DAG that is switched on shortly after a tick starts that tick's
    run at once, which would compete with the run that a person is about to trigger.
    """
    return CronTriggerTimetable(cron, timezone="UTC", interval=interval, run_immediately=timedelta(0))
