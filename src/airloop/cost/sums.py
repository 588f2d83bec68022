"""What was spent, by run, by day and for a thousand predictions.

Belongs here: adding up attempts. Does not belong here: reading them (`usage_table`), or what to change
(`advice`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict

from airloop.cost.usage_table import Used, since, spent
from airloop.intervals import ONE_DAY

TREND: Final = timedelta(days=28)
"""Compared with as many days before: whole weeks, for a week has its own course."""
HOURS_A_DAY: Final = 24


class Cost(BaseModel):
    """Base of what is said of costs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RunCost(Cost):
    """One DAG run."""

    dag_id: str
    run_id: str
    started: datetime
    wall_seconds: float
    """Of its tasks, added up: those that run beside each other count each."""
    cpu_seconds: float
    accelerator_seconds: float
    price: float | None
    """None where no task of it has one."""


class DayCost(Cost):
    """One UTC day."""

    day: date
    tasks: float
    """What its tasks cost."""
    serving: float | None
    """What answering cost, asked or not; None where the price table does not say."""
    predictions: int | None
    """Answers of the gateway; None where the day was not counted."""
    per_thousand: float | None
    """Tasks and serving together, for a thousand answers; None without answers."""


class Trend(Cost):
    """What a week costs now, and what it did before."""

    per_week: float
    per_week_before: float | None
    """None where the time before is not known."""

    @property
    def change(self) -> float | None:
        """By which share it grew; None where nothing tells."""
        return self.per_week / self.per_week_before - 1 if self.per_week_before else None


def by_run(found: Sequence[Used]) -> list[RunCost]:
    """`found` by DAG run, the newest first."""
    of_runs: dict[str, list[Used]] = defaultdict(list)
    for used in found:
        of_runs[used.run].append(used)
    runs = [_run(attempts) for attempts in of_runs.values()]
    return sorted(runs, key=lambda run: run.started, reverse=True)


def by_day(
    found: Sequence[Used], predictions: Mapping[date, int], serving_per_hour: float | None, last: date
) -> list[DayCost]:
    """Each whole day from the first of `found` to `last`, earliest first; none without `found`."""
    if not found:
        return []
    tasks: dict[date, float] = defaultdict(float)
    for used in found:
        tasks[used.attempt.started.date()] += used.price or 0.0
    first = min(tasks)
    serving = None if serving_per_hour is None else HOURS_A_DAY * serving_per_hour
    days = []
    for number in range((last - first).days + 1):
        day = first + number * ONE_DAY
        asked = predictions.get(day)
        whole = tasks.get(day, 0.0) + (serving or 0.0)
        dear = whole / asked * 1000 if asked else None
        days.append(
            DayCost(day=day, tasks=tasks.get(day, 0.0), serving=serving, predictions=asked, per_thousand=dear)
        )
    return days


def trend(found: Sequence[Used], at: datetime) -> Trend | None:
    """What the tasks of a week cost in the `TREND` before `at`, and in that before; None without `found`.

    A time that is known in part counts as long as it is known, if it is a week at least.
    """
    if not found:
        return None
    known = min(used.attempt.started for used in found)
    week = timedelta(days=7)
    recent = since(at - TREND, found)
    before = [used for used in since(at - 2 * TREND, found) if used.attempt.started < at - TREND]
    now_known = min(TREND, max(at - known, week))
    before_known = min(TREND, at - TREND - known)
    return Trend(
        per_week=spent(recent) * (week / now_known),
        per_week_before=spent(before) * (week / before_known) if before_known >= week else None,
    )


def _run(attempts: Sequence[Used]) -> RunCost:
    first = attempts[0].attempt
    prices = [used.price for used in attempts if used.price is not None]
    return RunCost(
        dag_id=first.dag_id,
        run_id=first.run_id,
        started=min(used.attempt.started for used in attempts),
        wall_seconds=sum(used.attempt.wall_seconds for used in attempts),
        cpu_seconds=sum(used.attempt.cpu_seconds for used in attempts),
        accelerator_seconds=sum(used.attempt.accelerator_seconds for used in attempts),
        price=sum(prices) if prices else None,
    )
