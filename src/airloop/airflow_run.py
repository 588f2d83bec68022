"""Which Airflow run this process works for.

Belongs here: the only reading of the names under which Airflow tells a task who it is. Does not belong here:
what is signed with it, or logged.
"""

from __future__ import annotations

import os
from typing import Final

BY_HAND: Final = "by-hand"
"""The run id of a job that no Airflow run started."""


_FIELDS: Final = {
    "dag_id": "AIRFLOW_CTX_DAG_ID",
    "run_id": "AIRFLOW_CTX_DAG_RUN_ID",
    "task_id": "AIRFLOW_CTX_TASK_ID",
    "map_index": "AIRFLOW_CTX_MAP_INDEX",
    "try_number": "AIRFLOW_CTX_TRY_NUMBER",
}


def task_fields() -> dict[str, str | int]:
    """Airflow's ids of the task that this process works for, by their names there; none without a task."""
    given = {name: os.environ[variable] for name, variable in _FIELDS.items() if variable in os.environ}
    return {name: int(value) if value.isdecimal() else value for name, value in given.items()}


def run_id() -> str:
    """Airflow's `<dag_id>/<run_id>` of the run that this process works for, or `BY_HAND`."""
    dag, run = os.environ.get("AIRFLOW_CTX_DAG_ID"), os.environ.get("AIRFLOW_CTX_DAG_RUN_ID")
    return f"{dag}/{run}" if dag and run else BY_HAND
