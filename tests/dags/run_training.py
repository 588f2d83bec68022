"""Run by `test_training_run` in a process of its own: a use case's training DAG, with stand-ins for its jobs.

Arguments: the stand-in that is started in Python's place, and the run's conf as JSON. Prints the state of the
run and of each task instance as JSON.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from airflow.dag_processing.dagbag import DagBag

from airloop_airflow import jobs

DAGS = Path(__file__).resolve().parents[2] / "dags"

if __name__ == "__main__":
    stand_in, conf = sys.argv[1:]
    jobs.sys = SimpleNamespace(executable=stand_in)
    (dag,) = (dag for dag in DagBag(str(DAGS / "training.py")).dags.values())
    run = dag.test(logical_date=datetime(2026, 3, 5, tzinfo=UTC), run_conf=json.loads(conf))
    instances = {
        f"{item.task_id}[{item.map_index}]" if item.map_index >= 0 else item.task_id: {
            "state": str(item.state),
            "label": item.rendered_map_index,
        }
        for item in run.get_task_instances()
    }
    print(json.dumps({"run": str(run.state), "tasks": instances}))
