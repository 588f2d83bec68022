"""The task that brings records from a use case's sources to `raw`, as several of its DAGs begin.

Belongs here: that task, with the connections it needs. Does not belong here: streams, whose DAG has its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airloop.connections import PSEUDONYM_KEY
from airloop.use_cases.spec import UseCase
from airloop_airflow.jobs import JobOperator, job_task


def ingest(use_case: UseCase, span: Mapping[str, Any]) -> JobOperator:
    """Land what the sources have of `span` (`start` and `end`)."""
    connections = [source.connection for source in use_case.sources if source.connection]
    connections += [PSEUDONYM_KEY for feed in use_case.feeds if feed.has_hashed_columns][:1]
    flags = {"start": span["start"], "end": span["end"]}
    return job_task(use_case, "ingest", "spark_jobs.ingest", flags, connections=connections)
