"""Job: whether a use case's budget has room for the run that asks.

    python -m airloop.cost.check_budget --use-case NAME --at 2026-11-20T02:00

Belongs here: the answer before anything is spent. Does not belong here: the rule (`budget`), or recording
(`record`), which comes after.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from airloop.cost.budget import spending
from airloop.cost.prices import prices_for_budget
from airloop.cost.references import BudgetState
from airloop.cost.used_so_far import used_so_far
from airloop.errors import BudgetError
from airloop.intervals import Interval, parse_instant
from airloop.jobs import run_job
from airloop.lakehouse.catalog import open_catalog
from airloop.settings import Settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase

log = logging.getLogger(__name__)

KNOWN: Final = timedelta(days=90)
"""How far back runs tell what one costs."""


def check(settings: Settings, spec: UseCase, at: datetime, *, whatever_it_costs: bool = False) -> BudgetState:
    """How the week before `at` stands, before a training.

    Raises `BudgetError` where the training would, at its usual price, spend more than the spec allows and
    that is to be refused, unless a person takes it `whatever_it_costs`; `SettingsError` where nothing has a
    price.
    """
    budget = spec.budget
    if budget is None:
        return BudgetState(use_case=spec.name, exceeded=False, said="there is no budget")
    prices = prices_for_budget(settings, spec.name)
    span = Interval(at - KNOWN, at)
    found = used_so_far(settings, open_catalog(settings), prices, spec.name, span)
    week = spending(budget, found, at, f"{spec.name}_training")
    log.info("%s", week.said)
    if week.would_be_exceeded and budget.when_exceeded == "refuse" and not whatever_it_costs:
        raise BudgetError(
            expected=f"at most {week.per_week:.2f} {week.currency} within a week for {spec.name}",
            found=week.said,
            next_step="wait until less was spent within a week, raise the budget in the spec, or trigger the "
            "run with whatever_it_costs",
        )
    return BudgetState(use_case=spec.name, exceeded=week.would_be_exceeded, said=week.said)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> BudgetState:
        return check(
            settings,
            use_case(arguments.use_case),
            parse_instant(arguments.at),
            whatever_it_costs=arguments.whatever_it_costs == "true",
        )

    parser = argparse.ArgumentParser(description="Whether the budget has room for another run.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--at", required=True, help="the present moment, ISO 8601, UTC")
    parser.add_argument(
        "--whatever-it-costs", choices=("true", "false"), default="false", help="run beyond the budget too"
    )
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
