"""A client of Airflow's public REST API: what an operator would do by hand, and no more.

Belongs here: requests and their answers. Does not belong here: which DAGs run in which order (`loop`).
"""

from __future__ import annotations

import time
from datetime import datetime
from types import TracebackType
from typing import Any, NamedTuple

import httpx

from airloop.errors import StackError

TOKEN_SECONDS = 3600
"""A token is renewed after this; Airflow's own default is a day."""


class DagRun(NamedTuple):
    """One run of a DAG."""

    run_id: str
    state: str
    started: datetime | None
    ended: datetime | None


class TaskInstance(NamedTuple):
    """One task of a run, in its latest try."""

    task_id: str
    state: str | None
    try_number: int
    started: datetime | None
    ended: datetime | None

    @property
    def seconds(self) -> float:
        """How long it has run; 0 before it started."""
        if self.started is None:
            return 0.0
        end = self.ended or datetime.now(self.started.tzinfo)
        return (end - self.started).total_seconds()


class AirflowApi:
    """Airflow at `url`, as the user `login`. Raises `StackError` for an answer that is an error.

    `verify` is httpx's: whose certificates are trusted.
    """

    def __init__(self, url: str, login: str, password: str, *, verify: Any = True) -> None:
        self._client = httpx.Client(base_url=url, timeout=60, verify=verify)
        self._login = {"username": login, "password": password}
        self._token_until = 0.0

    def __enter__(self) -> AirflowApi:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def has_dag(self, dag_id: str) -> bool:
        """Whether Airflow has parsed the DAG."""
        return self._answer("GET", f"/dags/{dag_id}").status_code == 200

    def health(self) -> dict[str, Any]:
        """How Airflow's parts say that they are, by name."""
        return dict(self._json("GET", "/monitor/health"))

    def bundle_version(self, dag_id: str) -> str | None:
        """The commit that the newest version of the DAG is of; None where DAGs come from a folder."""
        query = {"order_by": "-version_number", "limit": 1}
        found = self._json("GET", f"/dags/{dag_id}/dagVersions", params=query)["dag_versions"]
        return found[0]["bundle_version"] if found else None

    def import_errors(self) -> list[str]:
        """What is wrong with DAG files, one text per file."""
        found = self._json("GET", "/importErrors")["import_errors"]
        return [f"{item['filename']}: {item['stack_trace'].strip().splitlines()[-1]}" for item in found]

    def unpause(self, dag_id: str) -> None:
        """Switch the DAG on."""
        self._json("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def pause(self, dag_id: str) -> None:
        """Switch the DAG off; runs that are under way go on."""
        self._json("PATCH", f"/dags/{dag_id}", json={"is_paused": True})

    def run(self, dag_id: str, run_id: str) -> DagRun | None:
        """The run, or None when there is none of that id."""
        answer = self._answer("GET", f"/dags/{dag_id}/dagRuns/{run_id}")
        return None if answer.status_code == 404 else _run(self._checked(answer))

    def newest_runs(self, dag_id: str, limit: int = 20) -> list[DagRun]:
        """The DAG's runs, the newest first."""
        query = {"order_by": "-run_after", "limit": limit}
        return [_run(item) for item in self._json("GET", f"/dags/{dag_id}/dagRuns", params=query)["dag_runs"]]

    def trigger(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> DagRun:
        """Start a run by hand, as the UI's trigger form does."""
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        return _run(self._json("POST", f"/dags/{dag_id}/dagRuns", json=body))

    def clear_failed(self, dag_id: str, run_id: str) -> None:
        """Let a failed run go on from the tasks that failed."""
        body = {"dry_run": False, "only_failed": True, "reset_dag_runs": True, "dag_run_id": run_id}
        self._json("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)

    def tasks(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """The run's tasks."""
        found = self._json("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return [
            TaskInstance(
                item["task_id"],
                item["state"],
                item["try_number"],
                _moment(item["start_date"]),
                _moment(item["end_date"]),
            )
            for item in found
        ]

    def source_runs(self, dag_id: str, run_id: str) -> set[str]:
        """Ids of the runs whose Asset events started this run."""
        found = self._json("GET", f"/dags/{dag_id}/dagRuns/{run_id}/upstreamAssetEvents")["asset_events"]
        return {item["source_run_id"] for item in found}

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> list[dict[str, Any]]:
        """The lines of a task's try, as Airflow keeps them."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        content = self._json("GET", path, params={"full_content": True})["content"]
        return [line for line in content if isinstance(line, dict)]

    def result(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """What the task returned."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self._json("GET", path, params={"deserialize": True})["value"]

    def _answer(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        for attempt in range(5):
            try:
                if time.monotonic() > self._token_until:
                    token = self._checked(self._client.post("/auth/token", json=self._login))["access_token"]
                    self._client.headers["Authorization"] = f"Bearer {token}"
                    self._token_until = time.monotonic() + TOKEN_SECONDS
                answer = self._client.request(method, f"/api/v2{path}", **kwargs)
            except httpx.TransportError:
                # A POST whose answer was lost may have been done; the callers look before they repeat.
                if method == "POST" or attempt == 4:
                    raise
            else:
                if answer.status_code < 500 or method == "POST":
                    return answer
            time.sleep(1 + attempt)
        return answer

    def _json(self, method: str, path: str, **kwargs: Any) -> Any:
        return self._checked(self._answer(method, path, **kwargs))

    def _checked(self, answer: httpx.Response) -> Any:
        if answer.is_success:
            return answer.json() if answer.content else None
        raise StackError(
            expected=f"Airflow to answer {answer.request.method} {answer.request.url.path}",
            found=f"status {answer.status_code}: {answer.text[:300]}",
            next_step="look at `make status` and at the log of airflow-api-server",
        )


def _run(item: dict[str, Any]) -> DagRun:
    return DagRun(item["dag_run_id"], item["state"], _moment(item["start_date"]), _moment(item["end_date"]))


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
