"""Run by `test_airflow_events` in a process of its own: one run of a DAG of one job, with the listener on.

Arguments: the job's module, its flags as JSON.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

from airflow.sdk import DAG

from airloop.use_cases.catalogue import use_case
from airloop_airflow.jobs import job_task

with DAG("flight_delay_features", schedule=None) as dag:
    job_task(use_case("flight_delay"), "only", sys.argv[1], json.loads(sys.argv[2]))

run = dag.test(logical_date=datetime(2013, 3, 5, tzinfo=UTC))
print(run.state)
