"""From a new day of data to a model that serves: seconds by task, and which share of them is overhead.

Run by `make bench-loop` on a stack of its own; ends with one line of JSON.

The loop runs once over all history up to yesterday, which is not measured. Then the newest day comes: its
features run, a training as of today, the rollout of its candidate, until that is promoted. All of this wall
clock is one of

- *work*: a job does what it is for. Its span says so (`airloop.jobs.run_job`), less the
  span in which it opens a Spark session;
- *bake*: a stage of the rollout looks at traffic for as long as the spec says;
- *overhead*: the rest. Airflow schedules and starts tasks, processes start and import, JVMs start.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from rich.console import Console

from airloop.intervals import ONE_DAY, day_interval
from airloop.settings import Settings, load_settings
from airloop.stack import lifecycle
from airloop.stack.airflow_api import AirflowApi
from airloop.stack.loop import Windows, ensure_run, run_loop, started_by
from airloop.stack.programs import LOGIN, password
from airloop.use_cases.catalogue import use_case
from tests.observability.collector import Received, collecting

MOST_OVERHEAD: Final = 0.2
LAST_SPANS_SECONDS: Final = 10.0
STAGES: Final = "serving.stage"
"""The job that looks at traffic."""

Spans = list[tuple[float, float]]
"""From when to when, in seconds since 1970."""


class Task(NamedTuple):
    """A task of the measured runs."""

    name: str
    start: float
    end: float


def union(spans: Iterable[tuple[float, float]]) -> Spans:
    """The same seconds without overlaps, in order."""
    merged: Spans = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif end > start:
            merged.append((start, end))
    return merged


def without(spans: Spans, taken: Spans) -> Spans:
    """What of `spans` is in none of `taken`."""
    left = union(spans)
    for start, end in union(taken):
        left = [
            piece
            for one in left
            for piece in ((one[0], min(one[1], start)), (max(one[0], end), one[1]))
            if piece[1] > piece[0]
        ]
    return left


def within(spans: Spans, start: float, end: float) -> Spans:
    """What of `spans` is between `start` and `end`."""
    return union((max(one[0], start), min(one[1], end)) for one in spans)


def length(spans: Spans) -> float:
    """Their seconds."""
    return sum(end - start for start, end in spans)


def measured(tasks: Sequence[Task], received: Sequence[Received], start: float, end: float) -> dict[str, Any]:
    """What of the seconds from `start` to `end` was work, bake and overhead, as a whole and by task."""

    def spans_of(jobs: Iterable[Received]) -> Spans:
        return [(one.start_nanoseconds / 1e9, one.end_nanoseconds / 1e9) for one in jobs]

    jobs = [one for one in received if one.name.startswith("job ")]
    looks = [one for one in jobs if one.attributes.get("airloop.job") == STAGES]
    sessions = spans_of(one for one in received if one.name == "spark session")
    work = without(spans_of(one for one in jobs if one not in looks), sessions)
    stages = [(task.start, task.end) for task in tasks if _is_stage(task.name)]
    bake = without(stages, work)
    found = {}
    for task in tasks:
        wall = task.end - task.start
        worked, baked = (length(within(kind, task.start, task.end)) for kind in (work, bake))
        found[task.name] = {
            "seconds": round(wall, 1),
            "work": round(worked, 1),
            "bake": round(baked, 1),
            "overhead": round(wall - worked - baked, 1),
        }
    seconds = {"work": length(within(work, start, end)), "bake": length(within(bake, start, end))}
    seconds["overhead"] = end - start - sum(seconds.values())
    busy = union((task.start, task.end) for task in tasks)
    return {
        "tasks": found,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "between_tasks": round(length(without([(start, end)], busy)), 1),
        "wall_seconds": round(end - start, 1),
        "overhead_share": round(seconds["overhead"] / (seconds["overhead"] + seconds["work"]), 3),
        "overhead_share_with_bake": round(seconds["overhead"] / (end - start), 3),
    }


def _is_stage(name: str) -> bool:
    return name.rpartition(".")[2].startswith(("shadow", "canary_"))


def new_day(
    api: AirflowApi, name: str, as_of: datetime, windows: Windows, console: Console
) -> tuple[list[Task], float, float]:
    """Bring the day before `as_of` through the loop; its tasks, and from when until when it took.

    Raises `StackError` naming the task that failed, and `RuntimeError` where the candidate is not accepted.
    """
    run_id = f"bench_loop__{datetime.now(UTC):%Y%m%dT%H%M%S}"
    features, training, rollout = (f"{name}_{kind}" for kind in ("features", "training", "rollout"))
    began = time.time()
    day = {"start_date": f"{as_of - ONE_DAY:%Y-%m-%d}", "end_date": f"{as_of:%Y-%m-%d}"}
    ensure_run(api, features, run_id, day, console)
    ensure_run(api, training, run_id, {"as_of": f"{as_of:%Y-%m-%d}", **windows.given}, console)
    if api.result(training, run_id, "evaluate")["accepted"] is not True:
        raise RuntimeError("the candidate was rejected: there is no rollout to measure")
    rolled_out = started_by(api, rollout, run_id)
    while True:
        promoted = next(one for one in api.tasks(rollout, rolled_out) if one.task_id == "promote")
        if promoted.state == "success" and promoted.ended is not None:
            break
        if promoted.state in ("failed", "upstream_failed", "skipped"):
            raise RuntimeError(f"the candidate was not promoted: {promoted.state}")
        time.sleep(1)
    tasks = [
        Task(f"{dag_id}.{one.task_id}", one.started.timestamp(), one.ended.timestamp())
        for dag_id, run in ((features, run_id), (training, run_id), (rollout, rolled_out))
        for one in api.tasks(dag_id, run)
        if one.state == "success" and one.started is not None and one.ended is not None
    ]
    end = promoted.ended.timestamp()
    return sorted((task for task in tasks if task.start < end), key=lambda task: task.start), began, end


def _settings(endpoint: str) -> Settings:
    given = load_settings()
    state = given.repository / ".airloop" / "bench" / "loop"
    state.mkdir(parents=True, exist_ok=True)
    if not (state / "jars").exists():
        (state / "jars").symlink_to(given.jars_dir.resolve())
    return given.model_copy(update={"state_dir": state, "otlp_endpoint": endpoint})


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit status 1 where more than `MOST_OVERHEAD` is overhead."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--use-case", default="flight_delay")
    for name in ("train", "validation", "test"):
        parser.add_argument(f"--{name}-days", type=int, help="instead of the spec's window length")
    arguments = parser.parse_args(argv)
    spec, console = use_case(arguments.use_case), Console(stderr=True)
    windows = Windows(arguments.train_days, arguments.validation_days, arguments.test_days)
    today = day_interval(datetime.now(UTC).date()).start
    with collecting() as collector:
        settings = _settings(collector.endpoint)
        lifecycle.up(settings, console)
        try:
            with AirflowApi(settings.airflow_url, LOGIN, password(settings)) as api:
                run_loop(api, spec, today - ONE_DAY, console, windows)
                tasks, start, end = new_day(api, spec.name, today, windows, console)
            # The last spans are sent as their processes end.
            time.sleep(LAST_SPANS_SECONDS)
        finally:
            lifecycle.down(settings, console)
    found = measured(tasks, collector.spans, start, end)
    print("| task | seconds | work | bake | overhead |\n|---|--:|--:|--:|--:|")
    for name, one in found["tasks"].items():
        print(f"| {name} | {one['seconds']} | {one['work']} | {one['bake']} | {one['overhead']} |")
    passed = found["overhead_share"] <= MOST_OVERHEAD
    print(json.dumps({**found, "use_case": spec.name, "most_overhead": MOST_OVERHEAD, "passed": passed}))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
