"""A DAG that is deployed while a run of it is in its first task.

Belongs here: holding the run there until Airflow has taken the new file up, and what must come of it.
Does not belong here: the checkout (`checkout`).
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing, suppress
from typing import Final

import psutil

from tests.faults.survival.outcomes import Outcome
from tests.faults.survival.process_tree import stop_tree
from tests.faults.survival.world import World

FAULT: Final = "deployed in mid-run"
DAG_ID: Final = "cost"
THERE: Final = 'task(spending.tell, task_id="tell")(record.output)\n'
ADDED: Final = '        task(spending.tell, task_id="tell_again")(record.output)\n'
WITHIN_SECONDS: Final = 240.0
_RUNNING: Final = (
    "SELECT pid FROM task_instance WHERE dag_id = ? AND run_id = ? AND state = 'running' AND pid IS NOT NULL"
)


def deploy_in_mid_run(world: World) -> Outcome:
    """Add a task at the end of `DAG_ID` meanwhile; its run ends well, and the next run has the task too."""
    started = time.monotonic()
    file = world.settings.repository / "dags" / f"{DAG_ID}.py"
    deployed = file.read_text("utf-8")
    if THERE not in deployed:
        return Outcome(FAULT, DAG_ID, "not hit", why=f"{file.name} has no line {THERE.strip()!r} any more")
    versions = _versions(world)
    try:
        with world.switched_on([DAG_ID]):
            world.trigger(DAG_ID, "survival__deployed", {}, None)
            held = _held(world, "survival__deployed")
            file.write_text(deployed.replace(THERE, THERE + ADDED), encoding="utf-8")
            taken_up = _wait_for_another(world, versions)
            _let_go(held)
            during = world.wait_for_run(DAG_ID, "survival__deployed")
            world.trigger(DAG_ID, "survival__after", {}, None)
            after = world.wait_for_run(DAG_ID, "survival__after")
    finally:
        file.write_text(deployed, encoding="utf-8")
    if not held or not taken_up:
        return Outcome(FAULT, DAG_ID, "not hit", why="the run was over before Airflow took the new file up")
    wrong = [
        f"{run.run_id} ended as {run.state}: {dict(run.tasks)}"
        for run in (during, after)
        if run.state != "success"
    ]
    if after.tasks.get("tell_again") != ("success",):
        wrong.append(f"the new task ended as {after.tasks.get('tell_again')} in the next run")
    seconds = time.monotonic() - started
    why = "; ".join(wrong) or f"both runs over after {seconds:.0f} s"
    return Outcome(FAULT, DAG_ID, "lost" if wrong else "survived", why=why)


def _held(world: World, run_id: str) -> list[psutil.Process]:
    """The first task's processes, stopped."""
    end = time.monotonic() + WITHIN_SECONDS
    while time.monotonic() < end:
        with closing(sqlite3.connect(f"file:{world.database}?mode=ro", uri=True, timeout=5)) as connection:
            row = connection.execute(_RUNNING, (DAG_ID, run_id)).fetchone()
        if row is not None and (stopped := stop_tree(row[0])):
            return stopped
        time.sleep(0.02)
    return []


def _let_go(held: list[psutil.Process]) -> None:
    for process in reversed(held):
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)


def _versions(world: World) -> int:
    return int(world.call("GET", f"/dags/{DAG_ID}/dagVersions", params={"limit": 1})["total_entries"])


def _wait_for_another(world: World, versions: int) -> bool:
    end = time.monotonic() + WITHIN_SECONDS
    while time.monotonic() < end:
        if _versions(world) > versions:
            return True
        time.sleep(1)
    return False
