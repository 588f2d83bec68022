"""Run by `test_page` in a process of its own, on the server's database: the DAG that asks a person.

Arguments: the folder with that DAG alone, and a file for what a job is told of who approved.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from airflow.dag_processing.dagbag import DagBag

if __name__ == "__main__":
    (dag,) = DagBag(sys.argv[1]).dags.values()
    run = dag.test(logical_date=datetime(2026, 3, 1, tzinfo=UTC), run_conf={"file": sys.argv[2]})
    sys.exit(run.state != "success")
