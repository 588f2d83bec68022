"""Which workers take a job's task: those with its dependency group's packages."""

from __future__ import annotations

from airloop.compute import group_of
from airloop_airflow.jobs import JobOperator


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
