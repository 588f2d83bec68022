"""The killer over a database as Airflow has it, with processes that are really killed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.survival.killer import Killer, Task, Watched
from tests.faults.survival.outcomes import of_kills
from tests.faults.survival.world import RunEnded

TASK = Task("features", "ingest")
WORKER = """
import subprocess, sys, time
task = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(task.pid, flush=True)
task.wait()
time.sleep(600)
"""
WITHIN_SECONDS = 20


@pytest.fixture
def task_pid() -> Iterator[int]:
    """A task's process: the child of a worker, which is a child of this process."""
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    yield int(worker.stdout.readline())
    for process in (*psutil.Process(worker.pid).children(recursive=True), worker):
        process.kill()
    worker.wait()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    file = tmp_path / "airflow.db"
    with sqlite3.connect(file) as connection:
        connection.execute(
            "CREATE TABLE task_instance (id, dag_id, run_id, task_id, map_index, state, try_number, pid)"
        )
    return file


def _set(database: Path, state: str, try_number: int, pid: int | None, *, run_id: str = "run") -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM task_instance")
        connection.execute(
            "INSERT INTO task_instance VALUES ('1', ?, ?, ?, -1, ?, ?, ?)",
            (TASK.dag_id, run_id, TASK.task_id, state, try_number, pid),
        )


def _wait(until: Callable[[], Any]) -> None:
    end = time.monotonic() + WITHIN_SECONDS
    while not until():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def killer(database: Path) -> Iterator[Killer]:
    one = Killer(database, os.getpid(), seed=1, lengths={TASK: 0.5})
    one.follow(TASK.dag_id, {"an earlier run"})
    one.start()
    yield one
    one.end()


def test_a_running_task_is_killed_once_and_its_recovery_is_timed(killer, database, task_pid):
    _set(database, "running", 1, task_pid)
    _wait(lambda: TASK in killer.watched.kills)
    _wait(
        lambda: (
            psutil.Process(task_pid).status() == psutil.STATUS_ZOMBIE if psutil.pid_exists(task_pid) else True
        )
    )
    kill = killer.watched.kills[TASK]
    assert kill.processes == 1
    assert 0 < kill.after_seconds < 5
    _set(database, "up_for_retry", 1, task_pid)
    time.sleep(0.2)
    assert kill.recovered_seconds is None
    _set(database, "success", 2, None)
    _wait(lambda: kill.recovered_seconds is not None)
    assert (kill.tries, kill.state) == (2, "success")


def test_a_task_that_ended_before_its_moment_is_not_said_to_have_survived(killer, database, task_pid):
    killer._planned_by = {TASK: 600.0}
    _set(database, "running", 1, task_pid)
    _wait(lambda: killer._running)
    _set(database, "success", 1, None)
    _wait(lambda: killer.watched.missed)
    ended = {"features": RunEnded(TASK.dag_id, "run", "success", {TASK.task_id: ("success",)}, 1.0)}
    (outcome,) = of_kills(killer.watched, ended, ended)
    assert outcome.outcome == "not hit"
    assert psutil.pid_exists(task_pid)


def test_a_task_that_was_never_seen_is_not_said_to_have_survived():
    ended = {"features": RunEnded(TASK.dag_id, "run", "success", {TASK.task_id: ("success",)}, 1.0)}
    (outcome,) = of_kills(Watched(), ended, ended, [TASK])
    assert outcome.outcome == "not hit"


def test_a_run_of_before_is_left_alone(killer, database, task_pid):
    _set(database, "running", 1, task_pid, run_id="an earlier run")
    time.sleep(1)
    assert killer._running == {}
    assert psutil.pid_exists(task_pid)


def test_a_process_that_is_no_task_of_this_world_is_left_alone(killer, database):
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        _set(database, "running", 1, stranger.pid)
        _wait(lambda: killer._running)
        time.sleep(1)
        assert stranger.poll() is None
        assert killer.watched.kills == {}
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize(
    "ended",
    [
        {},
        {"features": RunEnded(TASK.dag_id, "run", "failed", {TASK.task_id: ("failed",)}, 1.0)},
        {"features": RunEnded(TASK.dag_id, "run", "success", {TASK.task_id: ("skipped",)}, 1.0)},
    ],
    ids=["never ran", "failed", "skipped"],
)
def test_a_run_that_did_not_end_as_undisturbed_is_lost(killer, database, task_pid, ended):
    _set(database, "running", 1, task_pid)
    _wait(lambda: TASK in killer.watched.kills)
    _set(database, "success", 2, None)
    _wait(lambda: killer.watched.kills[TASK].recovered_seconds is not None)
    undisturbed = {"features": RunEnded(TASK.dag_id, "run", "success", {TASK.task_id: ("success",)}, 1.0)}
    (outcome,) = of_kills(killer.watched, undisturbed, ended)
    assert outcome.outcome == "lost"
    (survived,) = of_kills(killer.watched, undisturbed, undisturbed)
    assert survived.outcome == "survived"
