"""The whole loop of a use case, run through Airflow's scheduler and followed task by task.

Belongs here: which runs make the loop, and following them. Does not belong here: what a DAG does, or what is
printed at the end (`summary`).

Runs have ids made from the as-of date and the spec, so that a second call finds the first one's runs and
changes nothing, and a call after a failure goes on where it failed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from rich.console import Console

from airloop.errors import StackError
from airloop.intervals import ONE_DAY, Interval
from airloop.stack.airflow_api import AirflowApi, DagRun, TaskInstance
from airloop.use_cases.spec import UseCase
from airloop.use_cases.training_policy import TrainingPolicy

POLL_SECONDS = 1.0
PARSE_SECONDS = 120
STARTED_BY_ASSET_SECONDS = 120
OVER = ("success", "failed", "upstream_failed", "skipped", "removed")


class Windows(NamedTuple):
    """Lengths of the training windows in days; None means the spec's."""

    train_days: int | None = None
    validation_days: int | None = None
    test_days: int | None = None

    @property
    def given(self) -> dict[str, int]:
        """Those that are not the spec's."""
        return {name: days for name, days in self._asdict().items() if days is not None}


class Stage(NamedTuple):
    """One task of the loop that ran."""

    dag_id: str
    task_id: str
    seconds: float


class LoopResult(NamedTuple):
    """What the loop's runs did."""

    stages: tuple[Stage, ...]
    training_run: str
    accepted: bool
    version: int | None
    """The registered version; none when the gate rejected the candidate."""
    worked: bool
    """Whether any run was started or continued; false when all of them were there already."""
    scored: Mapping[str, Any] | None
    """What the champion's scores of the day before came to, where it scores in batches."""


def features_interval(spec: UseCase, as_of: datetime, windows: Windows) -> Interval:
    """The whole days of history that a training run as of `as_of` needs.

    It reaches back over the windows, the time that labels take to mature, and the longest time that a feature
    value stays in force before the first example.
    """
    policy = TrainingPolicy(**{**spec.training.model_dump(), **windows.given})
    reach = spec.label.matures_after + max(
        (table.time_to_live for table in spec.feature_tables), default=timedelta(0)
    )
    whole = timedelta(days=-(-reach // ONE_DAY))
    return Interval(as_of - policy.total_days * ONE_DAY - whole, as_of)


def loop_run_id(spec: UseCase, as_of: datetime, windows: Windows) -> str:
    """The id of the loop's runs: equal for equal specs, dates and windows."""
    text = spec.model_dump_json() + repr(sorted(windows.given.items()))
    return f"make_run__{as_of:%Y-%m-%d}__{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def run_loop(
    api: AirflowApi, spec: UseCase, as_of: datetime, console: Console, windows: Windows
) -> LoopResult:
    """Run the features, training and rollout DAGs of `spec` as of `as_of`, and wait for each.

    Raises `StackError` naming the task that failed.
    """
    features, training, rollout = (f"{spec.name}_{kind}" for kind in ("features", "training", "rollout"))
    run_id = loop_run_id(spec, as_of, windows)
    span = features_interval(spec, as_of, windows)
    dates = {"start_date": f"{span.start:%Y-%m-%d}", "end_date": f"{span.end:%Y-%m-%d}"}
    worked, lent = [], []
    if spec.lender is not None:
        dag_id = f"{spec.lender}_features"
        _wait_for_dags(api, (dag_id,), console)
        worked.append(ensure_run(api, dag_id, run_id, dates, console))
        lent += _stages(api, dag_id, run_id)
    # Not before: what they publish would start a run of these as well.
    _wait_for_dags(api, (features, training, rollout), console)
    worked += [
        ensure_run(api, features, run_id, dates, console),
        ensure_run(api, training, run_id, {"as_of": f"{as_of:%Y-%m-%d}", **windows.given}, console),
    ]
    stages = [*lent, *_stages(api, features, run_id), *_stages(api, training, run_id)]
    accepted = api.result(training, run_id, "evaluate")["accepted"] is True
    version = None
    if accepted:
        version = int(api.result(training, run_id, "register")["version"])
        rollout_run = started_by(api, rollout, run_id)
        worked.append(follow(api, rollout, rollout_run, console))
        stages += _stages(api, rollout, rollout_run)
    scored = None
    if not spec.is_online and not accepted:
        raise StackError(
            expected=f"a candidate of {spec.name} that its gate accepts, whose scores could be shown",
            found="it was rejected; an earlier champion, if there is one, keeps scoring",
            next_step=f"read the verdict: the report of evaluate in {training}, run {run_id}",
        )
    if not spec.is_online:
        day = {"start_date": f"{as_of - ONE_DAY:%Y-%m-%d}", "end_date": f"{as_of:%Y-%m-%d}"}
        scoring = f"{spec.name}_scoring"
        _wait_for_dags(api, (scoring,), console)
        worked.append(ensure_run(api, scoring, run_id, day, console))
        stages += _stages(api, scoring, run_id)
        scored = api.result(scoring, run_id, "score")
    if spec.is_pushed:
        # From now on: before, there was nothing published that the day so far could be added to.
        api.unpause(f"{spec.name}_push")
    return LoopResult(tuple(stages), run_id, accepted, version, any(worked), scored)


def _wait_for_dags(api: AirflowApi, dag_ids: tuple[str, ...], console: Console) -> None:
    deadline = time.monotonic() + PARSE_SECONDS
    while missing := [dag_id for dag_id in dag_ids if not api.has_dag(dag_id)]:
        errors = api.import_errors()
        if errors or time.monotonic() > deadline:
            raise StackError(
                expected=f"Airflow to have the DAGs {', '.join(dag_ids)}",
                found=f"no {', '.join(missing)}; import errors: {'; '.join(errors) or 'none'}",
                next_step="mend the DAG file or the spec; the log of airflow-dag-processor has the traceback",
            )
        time.sleep(POLL_SECONDS)
    for dag_id in dag_ids:
        api.unpause(dag_id)
    console.print(f"DAGs switched on: {', '.join(dag_ids)}")


def ensure_run(
    api: AirflowApi, dag_id: str, run_id: str, conf: Mapping[str, str | int], console: Console
) -> bool:
    """Have a successful run `run_id`: start it, continue it where it failed, or leave it as it is."""
    run = api.run(dag_id, run_id)
    if run is None:
        shown = ", ".join(f"{name} {value}" for name, value in conf.items())
        console.print(f"[bold]{dag_id}[/] triggered: {shown}")
        api.trigger(dag_id, run_id, dict(conf))
    elif run.state == "failed":
        console.print(f"[bold]{dag_id}[/] failed before; it goes on from the tasks that failed")
        api.clear_failed(dag_id, run_id)
    elif run.state == "success":
        console.print(f"[bold]{dag_id}[/] is done already (run {run_id})")
        return False
    return follow(api, dag_id, run_id, console)


def started_by(api: AirflowApi, dag_id: str, source_run: str) -> str:
    """The run of `dag_id` that an Asset of the run `source_run` started; waits until there is one."""
    deadline = time.monotonic() + STARTED_BY_ASSET_SECONDS
    while time.monotonic() < deadline:
        for run in api.newest_runs(dag_id):
            if source_run in api.source_runs(dag_id, run.run_id):
                return run.run_id
        time.sleep(POLL_SECONDS)
    raise StackError(
        expected=f"{dag_id} to start when run {source_run} registered a candidate",
        found=f"no such run after {STARTED_BY_ASSET_SECONDS} s",
        next_step=f"look at the log of airflow-scheduler, and whether {dag_id} is paused",
    )


def follow(api: AirflowApi, dag_id: str, run_id: str, console: Console) -> bool:
    """Wait for the run's end, telling of each task; returns whether there was anything to wait for."""
    told: dict[str, str | None] = {}
    first = True
    while True:
        run = api.run(dag_id, run_id)
        if run is None:
            raise StackError(
                expected=f"the run {run_id} of {dag_id}",
                found="none; it was deleted meanwhile",
                next_step="make run again",
            )
        if first and run.state == "success":
            return False
        first = False
        tasks = api.tasks(dag_id, run_id)
        for task in sorted(tasks, key=lambda task: (task.started is None, str(task.started))):
            if told.get(task.task_id) != task.state and (line := _line(task)):
                console.print(f"  {dag_id}.{task.task_id:<17} {line}")
            told[task.task_id] = task.state
        if run.state in ("success", "failed"):
            _require_success(dag_id, run, tasks)
            return True
        time.sleep(POLL_SECONDS)


def _line(task: TaskInstance) -> str:
    if task.state == "running":
        return "runs" if task.try_number == 1 else f"runs (try {task.try_number})"
    if task.state in ("up_for_retry", *OVER):
        return f"{task.state} after {task.seconds:.0f} s" if task.started else task.state
    return ""


def _require_success(dag_id: str, run: DagRun, tasks: list[TaskInstance]) -> None:
    if run.state == "success":
        return
    failed = [task.task_id for task in tasks if task.state == "failed"]
    raise StackError(
        expected=f"the run {run.run_id} of {dag_id} to succeed",
        found=f"failed in {', '.join(failed) or 'no task'}",
        next_step="read the task's log (above, and in the Airflow UI), mend the cause, then make run again: "
        "it goes on from there",
    )


def _stages(api: AirflowApi, dag_id: str, run_id: str) -> list[Stage]:
    done = [task for task in api.tasks(dag_id, run_id) if task.state == "success" and task.started]
    return [
        Stage(dag_id, task.task_id, round(task.seconds, 1))
        for task in sorted(done, key=lambda task: str(task.started))
    ]
