"""Fields of the trigger forms that may stay empty.

Belongs here: how such a field is declared. Does not belong here: which fields a form has (the DAGs).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import DAG, Param
from airflow.sdk.definitions.param import ParamsDict


def ask(dag: DAG, form: Mapping[str, Param]) -> None:
    """Have the trigger form of `dag` ask what is in `form`; last, when its tasks are there.

    For a form with many fields on a DAG with many tasks: given to the DAG as it is made, Airflow copies the
    form into each task that follows (a quarter of the time that all files take to parse with 50 use cases).
    A run reads the DAG's own all the same.
    """
    dag.params = ParamsDict(form)


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
