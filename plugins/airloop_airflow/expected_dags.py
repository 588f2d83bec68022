"""Which DAGs are to be switched on, and when they run by the clock: what the watchdog holds them to.

Belongs here: each one's cron expression, interval, and how long a run may take. Does not belong here: looking
for what is not as it should be (`watchdog`). A test holds this list against the DAGs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from croniter import croniter

from airloop.use_cases.spec import UseCase
from airloop_airflow.policy import interval_of

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
WATCHDOG_CRON: Final = "40 * * * *"
"""After the hour's other runs."""
_HOURLY: Final = timedelta(hours=3)
_DAILY: Final = timedelta(hours=12)


class ExpectedDag(NamedTuple):
    """A DAG, and what may be expected of it."""

    dag_id: str
    cron: str | None = None
    """When it runs by the clock, in UTC; None for one that only Assets or people start."""
    interval: timedelta = timedelta(0)
    """What a run by the clock is about ends at its tick."""
    ends_within: timedelta | None = None
    """A run that has not ended so long after its tick is stuck; None where it waits for people or traffic."""
    on_from_the_start: bool = True
    """Others are expected to be switched on once they were seen switched on."""

    def ticks(self, after: datetime, until: datetime) -> list[datetime]:
        """When runs are due, later than `after`, and at `until` at the latest."""
        if self.cron is None:
            return []
        found = []
        clock = croniter(self.cron, after)
        while (tick := clock.get_next(datetime)) <= until:
            found.append(tick)
        return found

    def last_ticks(self, until: datetime, most: int) -> list[datetime]:
        """The `most` newest moments when runs were due, at `until` at the latest, oldest first."""
        if self.cron is None:
            return []
        clock = croniter(self.cron, until + timedelta(microseconds=1))
        return [clock.get_prev(datetime) for _ in range(most)][::-1]


def expected_dags(use_cases: Sequence[UseCase]) -> Iterator[ExpectedDag]:
    """All of them, the platform's own last."""
    for spec in use_cases:
        when, name = spec.schedules, spec.name
        follows = spec.lender is not None
        if not follows:
            yield ExpectedDag(f"{name}_features", when.features, DAY, _DAILY, on_from_the_start=False)
            yield ExpectedDag(f"{name}_rollback")
        else:
            yield ExpectedDag(f"{name}_features", on_from_the_start=False)
        if spec.is_pushed:
            yield ExpectedDag(
                f"{name}_push", None if follows else when.push, HOUR, _HOURLY, on_from_the_start=False
            )
        if when.training is not None:
            yield ExpectedDag(
                f"{name}_training",
                when.training,
                interval_of(when.training),
                timedelta(hours=36),
                on_from_the_start=False,
            )
        yield ExpectedDag(f"{name}_rollout", when.rollout, DAY, None, on_from_the_start=False)
        if spec.event_table:
            yield ExpectedDag(f"{name}_scoring", when.scoring, DAY, _DAILY, on_from_the_start=False)
        yield ExpectedDag(f"{name}_drill", when.drill, WEEK, _DAILY)
        for kind in ("overview", "override"):
            yield ExpectedDag(f"{name}_{kind}")
        if spec.is_online:
            yield ExpectedDag(f"{name}_skew", when.skew, DAY, _DAILY)
            yield ExpectedDag(f"{name}_monitoring", when.monitoring, HOUR, _HOURLY)
            for kind in ("retraining", "experiment", "silence"):
                yield ExpectedDag(f"{name}_{kind}")
    if any(spec.streams for spec in use_cases):
        yield ExpectedDag("stream_ingest", "0 * * * *", HOUR, _HOURLY, on_from_the_start=False)
    if any(spec.erasure is not None for spec in use_cases):
        yield ExpectedDag("erasure")
    yield ExpectedDag("predictions", "10 * * * *", HOUR, _HOURLY)
    yield ExpectedDag("maintenance", "30 3 * * *", DAY, _DAILY)
    yield ExpectedDag("backup", "15 2 * * *", DAY, _DAILY)
    yield ExpectedDag("cost", "50 * * * *", HOUR, _HOURLY)
    yield ExpectedDag("watchdog", WATCHDOG_CRON, HOUR, _HOURLY)
