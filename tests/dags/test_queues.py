"""Which workers take a job's task, those with its dependency group's packages; which pool it waits for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airloop.compute import group_of
from airloop.stack import programs
from airloop_airflow.jobs import JobOperator
from airloop_airflow.policy import HOURLY_POOL

REPOSITORY = Path(__file__).resolve().parents[2]


def test_each_job_waits_in_the_queue_of_its_group_also_a_mapped_one(dags):
    found = {}
    for dag in dags.values():
        for task in dag.tasks:
            module = getattr(task, "module", None) or getattr(task, "partial_kwargs", {}).get("module")
            if module is not None:
                assert task.queue == group_of(module), (task.task_id, module)
                found[module] = task.queue
    assert {"spark", "training", "serving"} == set(found.values())
    assert "airloop.training.fold" in found, "a mapped one"


def test_a_task_may_have_a_queue_of_its_own():
    task = JobOperator(task_id="t", module="airloop.training.train", use_case="u", flags={}, queue="gpus")
    assert task.queue == "gpus"


def test_what_runs_each_hour_for_every_use_case_is_in_a_pool_and_training_is_not(dags):
    pools = {}
    for dag_id, dag in dags.items():
        for task in dag.tasks:
            pools.setdefault(task.pool, set()).add(dag_id.rpartition("_")[2])
    assert pools == {
        HOURLY_POOL: {"push", "monitoring", "retraining", "overview"},
        "default_pool": pools["default_pool"],
    }
    assert {"training", "features", "rollout", "watchdog"} <= pools["default_pool"]
    assert not pools["default_pool"] & pools[HOURLY_POOL]


@pytest.mark.parametrize(
    ("file", "parallelism"),
    [
        ("docker-compose.yaml", r'AIRFLOW__CORE__PARALLELISM: "(\d+)"'),
        ("deploy/kubernetes/airflow/values.yaml", r"parallelism: (\d+)"),
        ("deploy/aws/infrastructure/services.py", r'"AIRFLOW__CORE__PARALLELISM": "(\d+)"'),
    ],
)
def test_every_deployment_makes_the_pool_with_half_of_its_slots(file, parallelism):
    text = (REPOSITORY / file).read_text("utf-8")
    found = re.findall(r"airflow pools set (\w+) (\d+) ", text)
    assert found == [(HOURLY_POOL, str(int(re.findall(parallelism, text)[0]) // 2))]
    assert programs.HOURLY_POOL == HOURLY_POOL
