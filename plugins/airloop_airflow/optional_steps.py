"""Whether a step is wanted that a run's form leaves to choose.

Belongs here: reading the form. Does not belong here: the steps, or what depends on them (the DAGs).
"""

from __future__ import annotations

from airflow.sdk import get_current_context


def is_wanted(param: str) -> bool:
    """Whether the run's parameter is on; only an explicit `true` says so."""
    return get_current_context()["params"][param] is True
