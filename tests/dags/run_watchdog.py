"""Run by `test_watchdog` in a process of its own: the watchdog DAG on an Airflow whose past it makes up.

Arguments: a folder with only the watchdog's DAG, and JSON, a list of looks. Each is what is new in Airflow at
that look: `dags` and whether each is paused, `runs` with `dag_id`, `logical_date` (ISO 8601) and `state`, and
what the watchdog `saw` before, if that is to be made up. Prints, as JSON, each look's run and what its tasks
returned.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

from airflow.dag_processing.dagbag import DagBag
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.variable import Variable
from airflow.utils.session import create_session
from airflow.utils.types import DagRunTriggeredByType, DagRunType

from airloop_airflow.watchdog import PREFIX


def _has(look: dict) -> None:
    if "saw" in look:
        Variable.set(f"{PREFIX}runs", look["saw"], serialize_json=True)
    with create_session() as session:
        session.merge(DagBundleModel(name="made-up"))
        session.flush()
        for dag_id, paused in look["dags"].items():
            session.merge(DagModel(dag_id=dag_id, bundle_name="made-up", is_paused=paused))
        for run in look["runs"]:
            date = datetime.fromisoformat(run["logical_date"])
            session.query(DagRun).filter_by(dag_id=run["dag_id"], logical_date=date).delete()
            session.add(
                DagRun(
                    dag_id=run["dag_id"],
                    run_id=f"scheduled__{date.isoformat()}",
                    logical_date=date,
                    run_after=date,
                    state=run["state"],
                    run_type=DagRunType.SCHEDULED,
                    triggered_by=DagRunTriggeredByType.TIMETABLE,
                )
            )


if __name__ == "__main__":
    (dag,) = DagBag(sys.argv[1]).dags.values()
    printed = []
    for number, look in enumerate(json.loads(sys.argv[2])):
        _has(look)
        ran = dag.test(logical_date=datetime(2026, 3, 5 + number, tzinfo=UTC))
        instances = {task.task_id: task for task in ran.get_task_instances()}
        printed.append(
            {
                "run": str(ran.state),
                **{name: task.xcom_pull(task_ids=name) for name, task in instances.items()},
            }
        )
    print(json.dumps(printed))
