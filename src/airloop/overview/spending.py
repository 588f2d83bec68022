"""What runs, models and predictions cost.

Belongs here: from the table of usage to the page's part about it. Does not belong here: the sums themselves
(`airloop.cost`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from airloop.cost.advice import fits
from airloop.cost.budget import ONE_WEEK
from airloop.cost.prices import PriceTable
from airloop.cost.sums import TREND, by_day, by_run, trend
from airloop.cost.usage_table import Used, since, spent
from airloop.intervals import ONE_DAY
from airloop.overview.document import Costs, Traffic
from airloop.use_cases.spec import UseCase

MOST_RUNS: Final = 40
FITTED: Final = timedelta(days=28)
"""How far back a machine's use is looked at: whole weeks, so that the rarer jobs are in it."""


def costs_of(
    spec: UseCase,
    found: list[Used],
    traffic: Traffic,
    prices: PriceTable | None,
    at: datetime,
    serving_idle: str | None = None,
) -> Costs:
    """What `found`, the attempts until `at`, cost."""
    currency = None if prices is None else prices.currency
    # What was paid in another currency cannot be added to this one's.
    found = [used if used.currency in (None, currency) else used._replace(price=None) for used in found]
    asked = {
        day: requests
        for day, requests in zip(traffic.days, traffic.requests, strict=True)
        if requests is not None
    }
    last_day = (at - ONE_DAY).date()
    serving = None if prices is None else prices.serving_per_hour(spec.name)
    seen = trend(found, at) if prices is not None else None
    return Costs(
        currency=currency,
        week=None if prices is None else spent(since(at - ONE_WEEK, found)),
        budget_per_week=None if spec.budget is None else spec.budget.per_week,
        trend=seen,
        change=None if seen is None else seen.change,
        days=tuple(by_day(found, asked, serving, last_day)) if prices is not None else (),
        runs=tuple(by_run(since(at - TREND, found))[:MOST_RUNS]),
        fits=tuple(fits(since(at - FITTED, found), prices)),
        idle=serving_idle,
    )


def prices_of_runs(found: list[Used]) -> dict[str, float]:
    """What each Airflow run (`<dag_id>/<run_id>`) of `found` cost, where it has a price."""
    return {f"{run.dag_id}/{run.run_id}": run.price for run in by_run(found) if run.price is not None}
