"""What may still be spent.

Belongs here: the rule, before a run and after. Does not belong here: what follows from it (the DAGs).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Final, NamedTuple

from airloop.cost.usage_table import Used, since, spent
from airloop.use_cases.budget_policy import Budget

ONE_WEEK: Final = timedelta(days=7)
TRAINING: Final = "airloop.training.train"
"""The module of the job without which a run trained nothing."""
USUAL_OF: Final = 5
"""Runs whose median is what one usually costs."""


class Spending(NamedTuple):
    """A week's spending beside its budget."""

    spent: float
    """In the seven days before."""
    usual: float | None
    """What a run of the DAG in question usually costs; None where none has a price yet."""
    currency: str
    per_week: float

    @property
    def is_exceeded(self) -> bool:
        """Whether more was spent than may be."""
        return self.spent > self.per_week

    @property
    def would_be_exceeded(self) -> bool:
        """Whether another run would spend more. The first one, of which nobody knows, is how one learns."""
        return self.spent + (self.usual or 0.0) > self.per_week

    @property
    def said(self) -> str:
        """In words."""
        text = f"{self.spent:.2f} {self.currency} spent within a week, at most {self.per_week:.2f}"
        if self.usual is None:
            return f"{text}; what a run costs is not known"
        return f"{text}; a run costs about {self.usual:.2f}"


def spending(budget: Budget, found: Sequence[Used], at: datetime, dag_id: str) -> Spending:
    """The week before `at` of `found` (a use case's attempts), and what a run of `dag_id` usually costs.

    Only a run that trained to the end tells what one costs: neither one that was refused or failed early, nor
    the one that asks. Prices of another currency than the newest one's are not added up.
    """
    currency = next((used.currency for used in reversed(found) if used.currency), "")
    found = [used for used in found if used.currency == currency and used.attempt.started < at]
    whole = {used.run for used in found if used.attempt.module == TRAINING and used.attempt.ended}
    of_runs: dict[str, float] = defaultdict(float)
    for used in found:
        if used.attempt.dag_id == dag_id and used.run in whole and used.price is not None:
            of_runs[used.run] += used.price
    newest = list(of_runs.values())[-USUAL_OF:]
    return Spending(
        spent(since(at - ONE_WEEK, found)), median(newest) if newest else None, currency, budget.per_week
    )
