"""Which Airflow run this process works for.

Belongs here: the only reading of the names under which Airflow tells a task who it is. Does not belong here:
what is signed with it.
"""

from __future__ import annotations

import os
from typing import Final

BY_HAND: Final = "by-hand"
"""The run id of a job that no Airflow run started."""


def run_id() -> str:
    """Airflow's `<dag_id>/<run_id>` of the run that this process works for, or `BY_HAND`."""
    dag, run = os.environ.get("AIRFLOW_CTX_DAG_ID"), os.environ.get("AIRFLOW_CTX_DAG_RUN_ID")
    return f"{dag}/{run}" if dag and run else BY_HAND
