"""Watches the tasks of a running Airflow, and kills each of them once at a random moment.

Belongs here: what the metadata database says of running tasks, how long each ran, when each is killed, and
how long its recovery took. Does not belong here: what runs (`scenario`), or whether the world is as it should
be afterwards (`state`).
"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from tests.faults.survival.process_tree import kill_tree

POLL_SECONDS: Final = 0.05
LATEST: Final = 0.95
"""Of the time that the task took undisturbed: a moment at its very end would often come too late."""
_ROWS: Final = (
    "SELECT id, dag_id, run_id, task_id, map_index, state, try_number, pid FROM task_instance "
    "WHERE dag_id = ? AND state IS NOT NULL"
)


class Task(NamedTuple):
    """A task of a DAG: what is killed once, whichever runs and instances it has."""

    dag_id: str
    task_id: str

    def __str__(self) -> str:
        return f"{self.dag_id}.{self.task_id}"


class Seen(NamedTuple):
    """A task instance as the database has it."""

    id: str
    task: Task
    run_id: str
    map_index: int
    state: str | None
    try_number: int
    pid: int | None


@dataclass
class Kill:
    """A task that was killed, and what became of it."""

    task: Task
    run_id: str
    map_index: int
    after_seconds: float
    """After it began to run."""
    at: float
    """By the monotonic clock."""
    processes: int
    """That were killed with it."""
    try_number: int
    """Of the try that was killed."""
    recovered_seconds: float | None = None
    """From the kill to the task's end, as it should end."""
    tries: int = 0
    """From the one that was killed on."""
    state: str | None = None
    """How the task ended."""


@dataclass
class Watched:
    """What the killer saw and did."""

    lengths: dict[Task, float] = field(default_factory=dict)
    """Seconds of each task that ran: the longest time that it was seen running."""
    kills: dict[Task, Kill] = field(default_factory=dict)
    missed: dict[Task, int] = field(default_factory=dict)
    """How often a task ended before its moment."""
    problems: list[str] = field(default_factory=list)
    """What kept it from following: then its figures say nothing."""


class Killer(threading.Thread):
    """Follows the runs that it is told of; with `lengths`, kills each of their tasks once.

    A task is killed at a random moment of the time that it took in the undisturbed world. Without `lengths`
    it only measures how long tasks run.
    """

    def __init__(
        self,
        database: Path,
        scheduler: int,
        *,
        seed: int,
        lengths: Mapping[Task, float] | None = None,
        only: frozenset[str] | None = None,
    ) -> None:
        """`scheduler` is the process id of the world's scheduler; `only` these DAGs' tasks are killed."""
        super().__init__(name="killer", daemon=True)
        self._scheduler = scheduler
        self._only = only
        self._database = database
        self._seed = seed
        self._planned_by = lengths
        self._lock = threading.Lock()
        self._followed: dict[str, frozenset[str]] = {}
        self._earlier: dict[Task, int] = {}
        self._running: dict[tuple[str, int], tuple[float, float | None]] = {}
        self._ended = threading.Event()
        self.watched = Watched()

    def follow(self, dag_id: str, before: Collection[str] = ()) -> None:
        """Take the tasks of the DAG's runs into account from now on, but of those that were there `before`.

        A run that an Asset starts is so followed from its first task on.
        """
        with self._lock:
            self._followed[dag_id] = frozenset(before)

    def leave_when_recovered(self, dag_id: str, within_seconds: float = 5.0) -> None:
        """The DAG's runs are over: forget them, once the ends of their tasks were seen."""
        end = time.monotonic() + within_seconds
        while time.monotonic() < end and (
            self._running
            or any(
                kill.recovered_seconds is None and task.dag_id == dag_id
                for task, kill in list(self.watched.kills.items())
            )
        ):
            time.sleep(POLL_SECONDS)
        with self._lock:
            self._followed.pop(dag_id, None)

    @property
    def to_be_hit(self) -> list[Task]:
        """Tasks that ended before their moment, and were not killed since."""
        return [task for task in list(self.watched.missed) if task not in self.watched.kills]

    def aim_earlier(self, task: Task) -> None:
        """The next moment of `task` comes from half the time of the one before."""
        self._earlier[task] = self._earlier.get(task, 0) + 1

    def end(self) -> None:
        """Stop following."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Look at the followed runs until `end`."""
        while not self._ended.wait(POLL_SECONDS):
            with self._lock:
                followed = dict(self._followed)
            try:
                for seen in self._seen(followed):
                    self._look_at(seen)
            except sqlite3.OperationalError as error:
                # A writer holds the file; the next look is soon.
                if "locked" not in str(error):
                    self.watched.problems.append(repr(error))

    def _seen(self, followed: Mapping[str, frozenset[str]]) -> list[Seen]:
        if not followed:
            return []
        found: list[Seen] = []
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=5)) as connection:
            for dag_id, before in followed.items():
                rows: list[Any] = connection.execute(_ROWS, (dag_id,)).fetchall()
                found += [
                    Seen(row[0], Task(row[1], row[3]), row[2], *row[4:])
                    for row in rows
                    if row[2] not in before
                ]
        return found

    def _look_at(self, seen: Seen) -> None:
        now = time.monotonic()
        key = (seen.id, seen.try_number)
        if seen.state == "running" and seen.pid:
            began, moment = self._running.get(key) or self._begin(key, seen, now)
            if moment is not None and now >= moment and seen.task not in self.watched.kills:
                self._kill(seen, began)
            return
        if key in self._running:
            began, moment = self._running.pop(key)
            self.watched.lengths[seen.task] = max(self.watched.lengths.get(seen.task, 0.0), now - began)
            if moment is not None and seen.task not in self.watched.kills:
                self.watched.missed[seen.task] = self.watched.missed.get(seen.task, 0) + 1
        kill = self.watched.kills.get(seen.task)
        if (
            kill is not None
            and kill.recovered_seconds is None
            and (kill.run_id, kill.map_index) == (seen.run_id, seen.map_index)
            and seen.state in ("success", "failed", "skipped", "upstream_failed")
        ):
            kill.recovered_seconds, kill.state = now - kill.at, seen.state
            kill.tries = seen.try_number - kill.try_number + 1

    def _begin(self, key: tuple[str, int], seen: Seen, now: float) -> tuple[float, float | None]:
        moment = None
        wanted = self._only is None or seen.task.dag_id in self._only
        if self._planned_by is not None and wanted and seen.task not in self.watched.kills:
            half = self._earlier.get(seen.task, 0)
            # One seed, one moment of each task, in whatever order they begin.
            share = random.Random(f"{self._seed} {seen.task} {half}").uniform(0, LATEST) / 2**half
            moment = now + share * self._planned_by.get(seen.task, 1.0)
        self._running[key] = (now, moment)
        return self._running[key]

    def _kill(self, seen: Seen, began: float) -> None:
        if not self._is_task(seen.pid):
            # It has just ended, or it is no task of ours: in neither case is there anything to kill.
            return
        at = time.monotonic()
        killed = kill_tree(seen.pid or 0)
        if not killed:
            return
        self.watched.kills[seen.task] = Kill(
            seen.task, seen.run_id, seen.map_index, at - began, at, len(killed), seen.try_number
        )

    def _is_task(self, pid: int | None) -> bool:
        """Whether the process is a task's: a child of a worker, which is a child of the scheduler."""
        try:
            return psutil.Process(pid).parents()[1].pid == self._scheduler
        except (psutil.NoSuchProcess, IndexError):
            return False
