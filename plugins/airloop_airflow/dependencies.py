"""The task at the head of each DAG: what the run will need answers, or one failure says what does not.

Belongs here: what a DAG's jobs need, and failing for it. Does not belong here: how something is asked
(`airloop.doctor.reachable`).

It runs in the worker's own process, in milliseconds. A dependency that is down fails this task alone: it is
tried again with the policy's back-off, and nothing after it has begun.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowException

from airloop.doctor.reachable import Need, Unreachable, unreachable
from airloop.settings import load_settings

TASK_ID: Final = "check_dependencies"
_NEEDS: Final[Mapping[str, tuple[Need, ...]]] = {
    "feature_repo": ("catalog", "feast_registry", "online_store", "warehouse"),
    "spark_jobs": ("catalog", "warehouse"),
    "spark_jobs.push": ("catalog", "feast_registry", "online_store", "warehouse"),
    "spark_jobs.training_set": ("catalog", "feast_registry", "warehouse"),
    # A rollback must not wait for tables; a stage that reads them says itself when it cannot.
    "serving": ("mlflow",),
    "airloop.training": ("catalog", "mlflow", "warehouse"),
    "airloop": ("catalog", "warehouse"),
}
"""By the job's module, or the longest part of its name that is listed."""


class DependencyDown(AirflowException):
    """Something that the run needs does not answer; a retry may find that it does."""

    def __init__(self, down: Sequence[Unreachable]) -> None:
        super().__init__(
            "; ".join(f"{item.name} does not answer ({item.found}). Next: {item.next_step}" for item in down)
        )
        self.names = [item.name for item in down]
        self._down = [tuple(item) for item in down]

    def __reduce__(self) -> tuple[Any, ...]:
        """An exception is made again from its arguments by default, and the message is not those."""
        return _again, (self._down,)


def _again(down: Iterable[tuple[str, str, str]]) -> DependencyDown:
    return DependencyDown([Unreachable(*item) for item in down])


def check_first(dag: DAG) -> None:
    """Put the check before everything that is in `dag` by now."""
    needs = sorted({need for module in _modules(dag) for need in needs_of(module)})
    first = list(dag.roots)
    with dag:
        checked = task(check, task_id=TASK_ID)(needs)
    checked >> first


def needs_of(module: str) -> tuple[Need, ...]:
    """What the job `module` cannot do without."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        found = _NEEDS.get(".".join(parts[:length]))
        if found is not None:
            return found
    return ()


def check(needs: Sequence[Need]) -> None:
    """Raises `DependencyDown` naming every one of `needs` that does not answer."""
    down = unreachable(load_settings(), needs)
    if down:
        raise DependencyDown(down)


def _modules(dag: DAG) -> set[str]:
    """The jobs of a DAG, mapped ones too."""
    found = {
        getattr(item, "module", None) or getattr(item, "partial_kwargs", {}).get("module")
        for item in dag.tasks
    }
    return {module for module in found if module}
