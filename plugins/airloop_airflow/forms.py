"""Fields of the trigger forms that may stay empty.

Belongs here: how such a field is declared. Does not belong here: which fields a form has (the DAGs).
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param


def optional_text(title: str, description: str, **schema: Any) -> Param:
    """A text that may be left empty: then it is None. (Airflow's form takes the default "" for required.)

    `schema` is more of JSON Schema, such as `format="date"`.
    """
    return Param(None, type=["null", "string"], title=title, description=description, **schema)


def days() -> dict[str, Param]:
    """The whole days that a run is about, as `run_times.features_interval` reads them."""
    return {
        "start_date": optional_text(
            format="date", title="First day", description="UTC; empty for the day before the run"
        ),
        "end_date": optional_text(
            format="date", title="Day after the last", description="UTC, excluded; empty for one day"
        ),
    }
