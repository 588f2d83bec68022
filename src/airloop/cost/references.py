"""What the jobs about cost hand on.

Belongs here: their result documents. Does not belong here: those of other jobs (`airloop.references`).
"""

from __future__ import annotations

from airloop.references import Reference


class BudgetState(Reference):
    """How a use case's spending stands beside its budget."""

    use_case: str
    exceeded: bool
    """Whether more was spent, or before a run: whether it would be."""
    said: str
    """The numbers in words."""


class RecordedUsage(Reference):
    """What was recorded of what tasks used."""

    attempts: int
    price: float | None
    """Of these attempts; None without a price table."""
    currency: str | None
    unreadable: tuple[str, ...] = ()
    """Files that are no attempts."""
    budgets: tuple[BudgetState, ...] = ()
    """Of each use case that has one."""
