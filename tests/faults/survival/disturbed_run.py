"""One DAG run on the cluster, watched to its end, with faults that strike as their tasks run.

Belongs here: when a fault strikes, what is waited for, and its outcome. Does not belong here: what the faults
are (`service_faults`), or whether what is left is right (`services`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import httpx
from rich.console import Console

from airloop.errors import StackError
from airloop.stack.airflow_api import AirflowApi, TaskInstance
from tests.cluster.podman import Cluster, ClusterError
from tests.faults.survival.outcomes import Outcome
from tests.faults.survival.service_faults import Fault

RUN_SECONDS = 3000
EARLIEST_SECONDS, LATEST_SECONDS = 2, 15
"""Of a task, when a fault strikes it."""


class Ended(NamedTuple):
    """A run that is over."""

    state: str
    tasks: dict[str, TaskInstance]
    outcomes: list[Outcome]


class Watch:
    """Follows runs of the cluster's Airflow; the same `seed` strikes at the same moments."""

    def __init__(self, cluster: Cluster, api: AirflowApi, console: Console, seed: int) -> None:
        self.cluster, self.api, self.console = cluster, api, console
        self._random = random.Random(seed)

    def run(self, dag_id: str, run_id: str, conf: dict[str, Any], faults: Sequence[Fault] = ()) -> Ended:
        """Start the run and follow it; raises `ClusterError` when it is not over in time.

        A run that fails under a fault is gone on with once, when the fault is put right: that is what its
        alert asks of a person.
        """
        self.api.trigger(dag_id, run_id, conf)
        after = {fault.name: self._random.uniform(EARLIEST_SECONDS, LATEST_SECONDS) for fault in faults}
        outcomes: dict[str, Outcome] = {}
        told: dict[str, str] = {}
        gone_on = False
        deadline = time.monotonic() + RUN_SECONDS
        while True:
            if time.monotonic() > deadline:
                raise ClusterError(f"{dag_id} {run_id} is not over after {RUN_SECONDS} s")
            time.sleep(1)
            for fault in faults:
                self._heal_by_time(fault)
            try:
                run = self.api.run(dag_id, run_id)
                tasks = {task.task_id: task for task in self.api.tasks(dag_id, run_id)}
            except (StackError, httpx.HTTPError) as error:
                self.console.print(f"  Airflow's API does not answer: {type(error).__name__}")
                continue
            self._tell(dag_id, tasks, told)
            for fault in faults:
                task = tasks[fault.task]
                if fault.struck_at is None:
                    self._strike(fault, task, after[fault.name])
                elif fault.heal_when_failed and task.state in ("up_for_retry", "failed"):
                    self._heal(fault)
                elif fault.name not in outcomes and task.state == "success" and fault.is_over(self.cluster):
                    outcomes[fault.name] = _outcome(dag_id, fault, task)
            if run is None or run.state not in ("success", "failed"):
                continue
            if not all(fault.is_over(self.cluster) for fault in faults):
                continue
            if run.state == "failed" and not gone_on and any(fault.struck_at for fault in faults):
                gone_on = True
                for fault in faults:
                    if tasks[fault.task].state == "failed":
                        fault.says = self._said(dag_id, run_id, tasks[fault.task])
                self.console.print(f"{dag_id} {run_id} failed; it goes on from there")
                self.api.clear_failed(dag_id, run_id)
                continue
            self.console.print(f"{dag_id} {run_id}: {run.state}")
            left = [fault for fault in faults if fault.name not in outcomes]
            for fault in left:
                outcomes[fault.name] = Outcome(
                    fault.name,
                    f"{dag_id}.{fault.task}",
                    "not hit" if fault.struck_at is None else "lost",
                    why=fault.says,
                )
            return Ended(run.state, tasks, [outcomes[fault.name] for fault in faults])

    def _tell(self, dag_id: str, tasks: dict[str, TaskInstance], told: dict[str, str]) -> None:
        for task in tasks.values():
            shown = f"{task.state} (try {task.try_number})"
            if task.state and told.get(task.task_id) != shown:
                self.console.print(f"  {dag_id}.{task.task_id} {shown} {task.seconds:.0f} s")
                told[task.task_id] = shown

    def _strike(self, fault: Fault, task: TaskInstance, after_seconds: float) -> None:
        if task.state in ("running", "deferred") and task.seconds > after_seconds:
            self.console.print(f"[bold]{fault.name}[/] after {task.seconds:.1f} s of {fault.task}")
            fault.strike(self.cluster)
            fault.struck_at = time.monotonic()
            fault.struck_after_seconds = round(task.seconds, 1)

    def _heal_by_time(self, fault: Fault) -> None:
        if fault.struck_at is None or fault.heal_when_failed:
            return
        if time.monotonic() - fault.struck_at >= fault.heal_after_seconds:
            self._heal(fault)

    def _heal(self, fault: Fault) -> None:
        if fault.heal is not None and not fault.healed:
            fault.heal(self.cluster)
            fault.healed = True
            self.console.print(f"{fault.name}: over")

    def _said(self, dag_id: str, run_id: str, task: TaskInstance) -> str:
        """The message with which the last try failed."""
        details = [
            detail["exc_value"]
            for line in self.api.log(dag_id, run_id, task.task_id, task.try_number)
            for detail in line.get("error_detail") or ()
        ]
        return str(details[-1])[:300] if details else "nothing"


def _outcome(dag_id: str, fault: Fault, task: TaskInstance) -> Outcome:
    assert fault.struck_at is not None
    return Outcome(
        fault=fault.name,
        subject=f"{dag_id}.{fault.task}",
        outcome="stopped" if fault.says else "survived",
        killed_after_seconds=fault.struck_after_seconds,
        recovered_seconds=round(time.monotonic() - fault.struck_at, 1),
        tries=task.try_number,
        why=fault.says,
    )
