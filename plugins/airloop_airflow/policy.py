"""What every task and DAG of Airloop has in common: owner, retries with back-off, alert, tags.

Belongs here: the defaults that the policy tests hold all DAGs to. Does not belong here: one DAG's wiring.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from airflow.sdk import CronTriggerTimetable
from croniter import croniter

from airloop.use_cases.spec import UseCase
from airloop_airflow.alerts import alert_on_failure

HOURLY_POOL: Final = "hourly"
"""The pool of the DAGs that run each hour for every use case. It has half of what a deployment runs at once:
any number of use cases leaves the other half to training and what else takes long. A deployment makes it
where it makes Airflow's tables."""
_HOURLY: Final = frozenset({"push", "monitoring", "retraining", "overview"})

_ANY_SUNDAY: Final = datetime(2023, 1, 1, tzinfo=UTC)
_TICKS: Final = 60
"""Two months of a daily cron: one that leaves out weekends, or a month, is seen as such."""
_EVERY_TASK: Final[Mapping[str, Any]] = {
    "retries": 2,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "execution_timeout": timedelta(minutes=10),
    "on_failure_callback": alert_on_failure,
}


def dag_arguments(use_case: UseCase, kind: str) -> dict[str, Any]:
    """Arguments of every DAG of `use_case`; `kind` is a tag too, for the UI's filter."""
    pool = {"pool": HOURLY_POOL} if kind in _HOURLY else {}
    return _arguments({**owned_by(use_case), **pool}, use_case.name, kind)


def platform_arguments(kind: str) -> dict[str, Any]:
    """Arguments of every DAG that is no use case's.

    Its owner is whom Airflow's `[operators] default_owner` names; tasks about one use case are `owned_by` it.
    """
    return _arguments({}, kind)


def owned_by(use_case: UseCase) -> dict[str, str]:
    """Whose a task is that is about `use_case`."""
    return {"owner": use_case.owner}


def _arguments(every_task: Mapping[str, str], *tags: str) -> dict[str, Any]:
    return {
        "catchup": False,
        "max_active_runs": 1,
        "default_args": {**_EVERY_TASK, **every_task},
        "tags": ["airloop", *tags],
    }


@functools.cache
def interval_of(cron: str) -> timedelta:
    """What a run by `cron` is about, up to its tick: the longest time from one tick to the next."""
    clock = croniter(cron, _ANY_SUNDAY)
    ticks = [clock.get_next(datetime) for _ in range(_TICKS)]
    return max(later - earlier for earlier, later in pairwise(ticks))


def schedule(cron: str, interval: timedelta) -> CronTriggerTimetable:
    """Runs at each tick of `cron` (UTC) over the `interval` before it, never for a tick already past.

    The zero allowance matters: by default a DAG that is switched on shortly after a tick starts that tick's
    run at once, which would compete with the run that a person is about to trigger.
    """
    return CronTriggerTimetable(cron, timezone="UTC", interval=interval, run_immediately=timedelta(0))
