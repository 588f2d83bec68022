"""One embedded deployment that the test has for itself: its stack, its Airflow, and its runs step by step.

Belongs here: starting and ending it, and having one DAG at a time run. Does not belong here: which DAGs in
which order (`scenario`), or killing (`killer`).

No DAG runs but the one whose turn it is: all are paused when Airflow finds them, by a policy that this world
alone has. The same policy has a killed task tried again after a second, where a deployment waits for half a
minute and longer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
from rich.console import Console

from airloop.errors import StackError
from airloop.settings import REPOSITORY, Settings
from airloop.stack import lifecycle, supervision
from airloop.stack.airflow_api import AirflowApi
from airloop.stack.programs import LOGIN, airflow_home, password
from tests.free_ports import free_ports

POLICY: Final = '''"""The policy of this world alone: nothing runs by itself, and retries come at once."""

from datetime import timedelta


def dag_policy(dag):
    dag.is_paused_upon_creation = True


def task_policy(task):
    task.retry_delay = timedelta(seconds=1)
    task.retry_exponential_backoff = 0.0
'''
CONFIGURATION: Final = """[dag_processor]
# A file that changes is parsed at once; all of them twice a minute takes the processors that runs need.
min_file_process_interval = 3600
"""
POLL_SECONDS: Final = 0.5
LONGEST_RUN_SECONDS: Final = 1800.0
OVER: Final = ("success", "failed")


class RunEnded(NamedTuple):
    """A run, and how each of its tasks ended."""

    dag_id: str
    run_id: str
    state: str
    tasks: Mapping[str, tuple[str | None, ...]]
    """States by task, of each of its instances."""
    seconds: float


class World:
    """A stack that is up. Its `token` is its own client's of Airflow's API."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self.settings = settings
        self.console = console
        self.api = AirflowApi(settings.airflow_url, LOGIN, password(settings))
        self._client = httpx.Client(base_url=settings.airflow_url, timeout=120)
        who = {"username": LOGIN, "password": password(settings)}
        token = self._client.post("/auth/token", json=who).raise_for_status().json()["access_token"]
        self._client.headers["Authorization"] = f"Bearer {token}"

    @property
    def database(self) -> Path:
        """Airflow's metadata database."""
        return airflow_home(self.settings) / "airflow.db"

    def call(self, method: str, path: str, **kwargs: Any) -> Any:
        """What Airflow's API answers."""
        answer = self._client.request(method, f"/api/v2{path}", **kwargs).raise_for_status()
        return answer.json() if answer.content else None

    def wait_for_dags(self, dag_ids: Sequence[str], within_seconds: float = 300) -> None:
        """Wait until Airflow has parsed all of `dag_ids`."""
        end = time.monotonic() + within_seconds
        while missing := [dag_id for dag_id in dag_ids if not self.api.has_dag(dag_id)]:
            if time.monotonic() > end:
                raise TimeoutError(f"no {missing} after {within_seconds} s: {self.api.import_errors()}")
            time.sleep(1)

    def pause(self, dag_id: str, *, paused: bool = True) -> None:
        """Switch the DAG off, or on."""
        (self.api.pause if paused else self.api.unpause)(dag_id)

    @contextmanager
    def switched_on(self, dag_ids: Sequence[str]) -> Iterator[None]:
        """`dag_ids` are on meanwhile."""
        for dag_id in dag_ids:
            self.pause(dag_id, paused=False)
        try:
            yield
        finally:
            for dag_id in dag_ids:
                self.pause(dag_id)

    @contextmanager
    def switched_off(self, dag_ids: Sequence[str]) -> Iterator[None]:
        """`dag_ids`, which are on, are off meanwhile."""
        for dag_id in dag_ids:
            self.pause(dag_id)
        try:
            yield
        finally:
            for dag_id in dag_ids:
                self.pause(dag_id, paused=False)

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any], run_after: datetime | None) -> None:
        """Start a run by hand; `run_after` is the moment that it is about."""
        body: dict[str, Any] = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)}
        if run_after is not None:
            body["run_after"] = run_after.isoformat()
        self.call("POST", f"/dags/{dag_id}/dagRuns", json=body)

    def runs(self, dag_id: str) -> dict[str, str]:
        """State of each run of the DAG, by id."""
        return {run.run_id: run.state for run in self.api.newest_runs(dag_id, limit=100)}

    def tasks_of_dags(self) -> dict[str, list[str]]:
        """Every task of every DAG that Airflow knows."""
        dags = self.call("GET", "/dags", params={"limit": 200, "exclude_stale": True})["dags"]
        return {
            dag["dag_id"]: [
                task["task_id"] for task in self.call("GET", f"/dags/{dag['dag_id']}/tasks")["tasks"]
            ]
            for dag in dags
        }

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Have one task of a run done again, and no other."""
        body = {
            "dry_run": False,
            "only_failed": False,
            "reset_dag_runs": True,
            "dag_run_id": run_id,
            "task_ids": [task_id],
        }
        self.call("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)

    def wait_for_run(self, dag_id: str, run_id: str, seconds: float = LONGEST_RUN_SECONDS) -> RunEnded:
        """Wait until the run is over, however it ended."""
        started = time.monotonic()
        while True:
            run = self.api.run(dag_id, run_id)
            if run is not None and run.state in OVER:
                break
            if time.monotonic() - started > seconds:
                raise TimeoutError(
                    f"{dag_id} {run_id} is {run.state if run else 'missing'} after {seconds} s"
                )
            time.sleep(POLL_SECONDS)
        states: dict[str, list[str | None]] = {}
        for task in self.api.tasks(dag_id, run_id):
            states.setdefault(task.task_id, []).append(task.state)
        ended = {task_id: tuple(sorted(of_task, key=str)) for task_id, of_task in sorted(states.items())}
        return RunEnded(dag_id, run_id, run.state, ended, time.monotonic() - started)


def settings_of(folder: Path, repository: Path = REPOSITORY) -> Settings:
    """The settings of a world whose state lies in `folder`."""
    state = folder / "state"
    state.mkdir(parents=True)
    (state / "jars").symlink_to((REPOSITORY / ".airloop" / "jars").resolve())
    policy = state / "airflow" / "config" / "airflow_local_settings.py"
    policy.parent.mkdir(parents=True)
    policy.write_text(POLICY, encoding="utf-8")
    (state / "airflow" / "airflow.cfg").write_text(CONFIGURATION, encoding="utf-8")
    return Settings(
        state_dir=state,
        repository=repository,
        # On one machine with other tests, jobs that gave way to them would take hours.
        job_niceness=0,
        backup_uri=str(folder / "backups"),
        **free_ports(),
    )


@contextmanager
def world(folder: Path, console: Console, repository: Path = REPOSITORY) -> Iterator[World]:
    """A new world below `folder`, which is up; it is down again afterwards."""
    settings = settings_of(folder, repository)
    try:
        with _environment():
            _up(settings, console)
        yield World(settings, console)
    finally:
        supervision.stop(settings)


def _up(settings: Settings, console: Console) -> None:
    try:
        lifecycle.up(settings, console)
    except StackError:
        # Beside other tests it may take longer than anybody should wait on a machine of their own.
        lifecycle.up(settings, console)


@contextmanager
def _environment() -> Iterator[None]:
    """No accelerator: what is computed on one is not the same to the last bit."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
