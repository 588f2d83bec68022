"""Run by `test_airflow_events` in a process of its own: runs DAGs of `dags/` and prints each one's state.

Arguments: the DAGs' ids.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from airflow.dag_processing.dagbag import DagBag

SUBJECT = "N14228"

if __name__ == "__main__":
    found = DagBag(str(Path(__file__).with_name("dags"))).dags
    for dag_id in sys.argv[1:]:
        conf = {"subject": SUBJECT} if dag_id == "erasure" else {}
        run = found[dag_id].test(logical_date=datetime(2013, 3, 5, tzinfo=UTC), run_conf=conf)
        print(f"{dag_id}: {run.state}", flush=True)
