"""Run by `test_airflow_events`: jobs of a day of 2013, one of which cannot succeed, and two without data."""

from __future__ import annotations

from airflow.sdk import DAG

from airloop.use_cases.catalogue import use_case
from airloop_airflow.jobs import job_task

spec = use_case("flight_delay")
with DAG("flight_delay_features", schedule=None):
    job_task(spec, "ingest", "spark_jobs.ingest", {"start": "2013-03-05", "end": "2013-03-06"})
    job_task(spec, "clean", "spark_jobs.clean", {"start": "2013-03-05", "end": "2013-03-05T12:00"}, retries=0)
with DAG("without_data", schedule=None):
    job_task(None, "only", "job_without_data", {})
with DAG("erasure", schedule=None, params={"subject": ""}):
    job_task(None, "only", "job_without_data", {})
