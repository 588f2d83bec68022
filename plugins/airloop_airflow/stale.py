"""What follows a change of published rows: training sets and models are marked, and a training is requested.

Belongs here: the tasks that every DAG which changes published rows ends with, and their conditions. Does not
belong here: which sets and models are stale (`airloop.versions.stale`), or the training itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import chain, task

from airloop.use_cases.spec import UseCase
from airloop_airflow import assets, retraining
from airloop_airflow.jobs import JobOperator, job_task

WHY = "published rows changed that the champion was trained on"


def rows_changed(published: Mapping[str, Any]) -> bool:
    """Whether a publication replaced rows by others; new days and equal rows are no change."""
    return bool(published["changed_days"])


def retraining_wanted(marked: Mapping[str, Any]) -> bool:
    """Whether the champion is stale and the spec wants another one."""
    return marked["retrain"] is True


def mark_stale(use_case: UseCase) -> JobOperator:
    """The task that marks what is stale, followed by those that request a training where one is wanted."""
    marked = job_task(use_case, "mark_stale", "airloop.versions.stale", {})
    wanted = task.short_circuit(retraining_wanted, task_id="retraining_wanted")(marked.output)
    asset = assets.retrain_request(use_case)
    asked = task(retraining.request, task_id="request_training", outlets=[asset])(asset, WHY)
    chain(wanted, asked)
    return marked
