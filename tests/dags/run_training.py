"""Run by `test_training_run` in a process of its own: a use case's training DAG, with stand-ins for its jobs.

Arguments: a folder with only that DAG, and JSON, a list of runs, each the stand-in that is started in place
of Python, and the run's conf. Prints, as JSON, the state of each run and of each of its task instances.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from airflow.dag_processing.dagbag import DagBag

from airloop_airflow import jobs


def _ran(day: int, stand_in: str, conf: dict[str, Any]) -> dict[str, Any]:
    # Each run its own: the DAG keeps the params of the one before.
    dag = DagBag(sys.argv[1]).dags["flight_delay_training"]
    jobs.sys = SimpleNamespace(executable=stand_in)
    run = dag.test(logical_date=datetime(2026, 3, day, tzinfo=UTC), run_conf=conf)
    instances = {
        f"{item.task_id}[{item.map_index}]" if item.map_index >= 0 else item.task_id: {
            "state": str(item.state),
            "label": item.rendered_map_index,
        }
        for item in run.get_task_instances()
    }
    return {"run": str(run.state), "tasks": instances}


if __name__ == "__main__":
    runs = json.loads(sys.argv[2])
    print(json.dumps([_ran(day, stand_in, conf) for day, (stand_in, conf) in enumerate(runs, 1)]))
