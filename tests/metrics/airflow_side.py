"""Run by the fixture `watched` in a process of its own: what Airflow and its tasks send as they work.

Argument: a folder for stand-ins of jobs. Tasks, runs and the scheduler are real. What needs one more process
is told by the function that tells it there: the triggerer's heartbeat, and the summary of all DAG files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

from airflow.configuration import conf
from airflow.dag_processing.dagbag import DagBag
from airflow.dag_processing.manager import DagFileStat, emit_metrics
from airflow.jobs.job import Job, run_job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.jobs.triggerer_job_runner import TriggerRunnerSupervisor
from airflow.observability import stats as core_stats
from airflow.observability.metrics import stats_utils as core_utils
from airflow.sdk.observability import stats as sdk_stats
from airflow.sdk.observability.metrics import stats_utils as sdk_utils
from airflow.utils.db import initdb

from airloop_airflow import jobs
from tests.metrics.dags.observed import documents

DAGS = Path(__file__).with_name("dags")
STAND_IN = """#!{python}
import json, sys
documents = json.load(open({documents!r}))
open(sys.argv[sys.argv.index("--result") + 1], "w").write(json.dumps(documents[sys.argv[5]]))
"""


def main(folder: Path) -> None:
    """Send all of it, and what grows once more when a line on the standard input says that it was read."""
    initdb()
    # As the main programs of a task and of a scheduler do.
    legacy = conf.getboolean("metrics", "legacy_names_on")
    sdk_stats.initialize(factory=sdk_utils.get_stats_factory(), export_legacy_names=legacy)
    core_stats.initialize(factory=core_utils.get_stats_factory(), export_legacy_names=legacy)

    written, stand_in = folder / "documents.json", folder / "stand_in.py"
    written.write_text(json.dumps(documents()), encoding="utf-8")
    stand_in.write_text(STAND_IN.format(python=sys.executable, documents=str(written)), encoding="utf-8")
    stand_in.chmod(0o755)
    jobs.sys = SimpleNamespace(executable=str(stand_in))
    dags = DagBag(str(DAGS)).dags

    def every() -> None:
        emit_metrics(parse_time=1.5, dag_file_stats=[DagFileStat(num_dags=len(dags))])
        TriggerRunnerSupervisor.heartbeat_callback(SimpleNamespace(team_name=None))
        dags["short"].test()
        job = Job()
        run_job(job, SchedulerJobRunner(job, num_runs=2)._execute)

    every()
    dags["jobs"].test()
    dags["failing"].test()
    sys.stdin.readline()
    every()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
