"""Job: what tasks used, from the files that they left to the table, with what it costs; and the budgets.

    python -m airloop.cost.record --at 2026-11-20T12:50

Belongs here: from files to the table, and which budgets are exceeded. Does not belong here: who is told.

Killed between its commit and removing the files, it puts the same rows into the table again the next time.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from pyiceberg.catalog import Catalog

from airloop.cost.attempts import written_attempts
from airloop.cost.budget import ONE_WEEK, spending
from airloop.cost.prices import load_prices, prices_for_budget
from airloop.cost.references import BudgetState, RecordedUsage
from airloop.cost.usage_table import Used, priced, replace_attempts, used_in
from airloop.intervals import Interval, parse_instant
from airloop.jobs import run_job
from airloop.lakehouse.catalog import open_catalog
from airloop.settings import Settings
from airloop.use_cases.budget_policy import Budget
from airloop.use_cases.catalogue import all_use_cases

log = logging.getLogger(__name__)

MOST_AT_ONCE = 1000
"""Attempts of one commit."""


def record(settings: Settings, at: datetime) -> RecordedUsage:
    """Record what is over at `at`, and hold what was spent until then against each use case's budget.

    A file that is no attempt stays, and is named. Raises `SettingsError` for an unusable price table, and
    where a use case has a budget and nothing has a price.
    """
    budgets = {spec.name: spec.budget for spec in all_use_cases() if spec.budget is not None}
    prices = prices_for_budget(settings, ", ".join(budgets)) if budgets else load_prices(settings)
    catalog = open_catalog(settings)
    over: list[tuple[Path, Used]] = []
    unreadable = []
    for path, attempt in written_attempts(settings):
        if attempt is None:
            unreadable.append(path.name)
        elif attempt.is_over(at):
            over.append((path, priced(attempt, prices)))
    for start in range(0, len(over), MOST_AT_ONCE):
        piece = over[start : start + MOST_AT_ONCE]
        replace_attempts(catalog, [used for _, used in piece])
        for path, _ in piece:
            path.unlink(missing_ok=True)
    if unreadable:
        log.warning(
            "no attempts, and left where they are (%s): %s", settings.usage_dir, ", ".join(unreadable)
        )
    found = [used for _, used in over]
    return RecordedUsage(
        attempts=len(found),
        price=sum(used.price or 0.0 for used in found) if prices is not None else None,
        currency=None if prices is None else prices.currency,
        unreadable=tuple(unreadable),
        budgets=tuple(_state(catalog, name, budget, at) for name, budget in budgets.items()),
    )


def _state(catalog: Catalog, use_case: str, budget: Budget, at: datetime) -> BudgetState:
    found = used_in(catalog, Interval(at - ONE_WEEK, at), use_case)
    week = spending(budget, found, at, f"{use_case}_training")
    return BudgetState(use_case=use_case, exceeded=week.is_exceeded, said=week.said)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> RecordedUsage:
        return record(settings, parse_instant(arguments.at))

    parser = argparse.ArgumentParser(description="What tasks used, and what it costs.")
    parser.add_argument("--at", required=True, help="the present moment, ISO 8601, UTC")
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
