"""Airflow's cluster policy on Kubernetes: a task's queue decides which pod it gets.

Belongs here: what Airflow must know of Kubernetes so that no DAG and no operator has to. Does not belong
here: what a pod is like (`deploy/kubernetes/base/pod-templates`).

`values.yaml` holds this text for the chart, which mounts it in Airflow's own processes. tests/deploy compares
them. The chart renders it as a template: no double braces.
"""

from __future__ import annotations

import os
from typing import Any

TEMPLATES = "/opt/airloop/pod-templates"
GROUPS = ("spark", "training", "serving")
"""Queues with a pod of their own; tasks of every other queue get Airflow's default, `default.yaml`."""
IMAGES = "WORKER_IMAGES"
"""Environment variable with the images of tasks' pods, such as `registry.example.com/airloop-{group}:1.0`,
where `{group}` stands for `airflow`, `worker-data` and so on; without it they are those of the templates."""


def task_instance_mutation_hook(task_instance: Any, dag_run: Any = None) -> None:
    """Give the task instance the pod template of its queue; called whenever it is about to be scheduled."""
    if task_instance.queue in GROUPS:
        given = task_instance.executor_config or {}
        template = f"{TEMPLATES}/{task_instance.queue}.yaml"
        task_instance.executor_config = {**given, "pod_template_file": template}


def pod_mutation_hook(pod: Any) -> None:
    """Take the images from this cluster's registry: the templates name them without one."""
    pattern = os.environ.get(IMAGES)
    if not pattern:
        return
    for container in [*(pod.spec.init_containers or []), *pod.spec.containers]:
        name = container.image.partition(":")[0]
        if name.startswith("airloop-"):
            container.image = pattern.replace("{group}", name.removeprefix("airloop-"))
