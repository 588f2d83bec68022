"""Benchmark: rollouts under a steady load: a good candidate, and seven that are bad in one way each.

    make bench-rollout        (or: python -m benchmarks.rollout [--requests-per-second 100] [--only NAME ...])

Needs the local stack with a champion (`make run`). Each candidate is made from the champion, registered and
signed (`benchmarks.candidates`), and rolled out by the DAG through Airflow's scheduler, while another process
(`benchmarks.steady_load`) asks the gateway at a steady rate and tells outcomes. For each: the stage where it
stopped, what was decided, seconds from the decision until it had no traffic, requests, and failed ones (any
status but 200). With `--kill`, the gateway, the model server and the scheduler (or those that
it names) are killed (`kill -9`) in the middle of rollouts of other good candidates; requests fail while what
answers them is dead, which is said apart.

Ends with one line of JSON. Exits with 1 when a bad candidate became the champion or stayed loaded, the good
one did not, or a request failed in a rollout in which nothing was killed.

Belongs here: the measure. Does not belong here: candidates, or the load.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from airloop.audit_log import records
from airloop.intervals import Interval, parse_instant
from airloop.registry import CHAMPION, version_behind
from airloop.settings import Settings, load_settings
from airloop.stack import supervision
from airloop.stack.airflow_api import AirflowApi
from airloop.stack.programs import LOGIN, password
from airloop.upcoming import upcoming_requests
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from benchmarks.candidates import changes, register
from benchmarks.steady_load import SteadyLoad

EXPECTED: Final = {
    "good": ("watch", "go_on"),
    "slow": ("shadow", "roll_back"),
    "errors_2_percent": ("shadow", "roll_back"),
    "nan": ("shadow", "roll_back"),
    "shifted": ("shadow", "roll_back"),
    "worse": ("shadow", "roll_back"),
    "wrong_signature": ("infra_check", "failed"),
    "damaged_file": ("infra_check", "failed"),
}
"""The stage where each is to stop, and how; a stage before it would do too."""
KILLED: Final = ("gateway", "model-server", "airflow-scheduler")
RUN_SECONDS: Final = 1800
LOAD_SECONDS: Final = 24 * 3600
"""More than all rollouts take; the load ends when it is told to."""
WARM_UP_SECONDS: Final = 5.0


class Rolled(NamedTuple):
    """What became of a candidate."""

    candidate: str
    version: int
    stage: str
    decision: str
    reason: str
    seconds_to_roll_back: float | None
    seconds: float
    requests: int
    failed: int
    answered_by_candidate: int
    p50_milliseconds: float
    p99_milliseconds: float
    killed: str | None = None


@contextmanager
def load(settings: Settings, spec: UseCase, rate: float, folder: Path) -> Iterator[Path]:
    """The steady load, for a `with` block; yields the file of its answers."""
    folder.mkdir(parents=True, exist_ok=True)
    bodies, answers = folder / "bodies.jsonl", folder / "answers.jsonl"
    bodies.write_text("\n".join(_bodies(settings, spec)), encoding="utf-8")
    load = SteadyLoad(
        host=settings.host,
        port=settings.gateway_port,
        use_case=spec.name,
        bodies=bodies,
        answers=answers,
        requests_per_second=rate,
        seconds=LOAD_SECONDS,
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.steady_load", load.model_dump_json()], cwd=settings.repository
    )
    try:
        time.sleep(WARM_UP_SECONDS)
        yield answers
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _bodies(settings: Settings, spec: UseCase) -> list[str]:
    """Requests for the events of twelve hours after the newest that is published: features are in force."""
    newest = max(
        item["as_of"]
        for path in (settings.reports_dir / spec.name).glob("make_run*.json")
        if (item := json.loads(path.read_text("utf-8")))
    )
    start = parse_instant(newest) + spec.prediction_lead
    return upcoming_requests(settings, spec, Interval(start, start + timedelta(hours=12)), 2000)


def read(answers: Path, since: float) -> list[dict[str, Any]]:
    """The answers to requests that were sent after `since`."""
    found = (json.loads(line) for line in answers.read_text("utf-8").splitlines() if line.endswith("}"))
    return [item for item in found if item["at"] >= since]


def roll_out(
    settings: Settings,
    spec: UseCase,
    api: AirflowApi,
    answers: Path,
    name: str,
    version: int,
    bake_minutes: float,
    kill: str | None = None,
) -> Rolled:
    """Roll `version` out and wait until the run is over."""
    dag = f"{spec.name}_rollout"
    run_id = f"bench__{name}__{version}__{kill or 'calm'}__{int(time.time())}"
    begun = time.time()
    conf = {"version": version, "bake_minutes": bake_minutes, "reason": f"bench: {name}"}
    api.trigger(dag, run_id, conf)
    deadline, struck = time.monotonic() + RUN_SECONDS, False
    while True:
        run = api.run(dag, run_id)
        if run is not None and run.state in ("success", "failed"):
            break
        if time.monotonic() > deadline:
            raise RuntimeError(f"{run_id} is not over after {RUN_SECONDS} s")
        if kill and not struck and _in_stage(settings, spec, version):
            _strike(settings, kill)
            struck = True
        time.sleep(1)
    ended = time.time()
    seen = read(answers, begun)
    if not any(item["at"] >= ended - 5 for item in seen):
        raise RuntimeError("the load has ended before the rollout: its figures would be of nothing")
    found = _outcome(settings, spec, f"{dag}/{run_id}", {t.task_id: t.state for t in api.tasks(dag, run_id)})
    taken = np.array([item["seconds"] for item in seen if item["status"] == 200]) * 1000
    return Rolled(
        candidate=name,
        version=version,
        **found,
        seconds=round(ended - begun, 1),
        requests=len(seen),
        failed=sum(item["status"] != 200 for item in seen),
        answered_by_candidate=sum(item["version"] == version for item in seen),
        p50_milliseconds=round(float(np.quantile(taken, 0.5)), 1),
        p99_milliseconds=round(float(np.quantile(taken, 0.99)), 1),
        killed=kill,
    )


def _in_stage(settings: Settings, spec: UseCase, version: int) -> bool:
    """Whether the candidate has a share of the clients."""
    try:
        answer = httpx.get(f"{settings.gateway_url}/v1/{spec.name}", timeout=5).json()
    except (httpx.TransportError, ValueError):
        return False
    split = (answer.get("routing") or {}).get("split") or {}
    return bool(split.get("version") == version)


def _strike(settings: Settings, program: str) -> None:
    """`kill -9` of a program of the stack and of all that it started; supervisord starts it again."""
    process = psutil.Process(supervision.states(settings)[program].pid)
    for victim in [process, *process.children(recursive=True)]:
        victim.kill()


def _outcome(settings: Settings, spec: UseCase, run: str, states: dict[str, str | None]) -> dict[str, Any]:
    """Where the run stopped and why, from the decisions on record."""
    decided = [
        record["what"]
        for record in records(settings)
        if record["kind"] == "rollout decision" and record["who"] == run
    ]
    if states.get("infra_check") == "failed":
        return {
            "stage": "infra_check",
            "decision": "failed",
            "reason": "see the task's log",
            "seconds_to_roll_back": None,
        }
    last = decided[-1] if decided else {"stage": "none", "decision": "none", "reason": str(states)}
    return {
        "stage": last["stage"],
        "decision": last["decision"],
        "reason": last["reason"],
        "seconds_to_roll_back": last.get("seconds_to_roll_back"),
    }


def problem_of(settings: Settings, spec: UseCase, rolled: Rolled) -> str | None:
    """What is wrong with the outcome."""
    champion = version_behind(settings, spec.model_name, CHAMPION)
    stage, decision = EXPECTED[rolled.candidate]
    if decision == "go_on":
        if (rolled.stage, rolled.decision) != (stage, decision) or champion != rolled.version:
            return f"ended in {rolled.stage} with {rolled.decision}; the champion is {champion}"
    elif rolled.decision not in ("roll_back", "failed") or champion == rolled.version:
        return f"ended in {rolled.stage} with {rolled.decision}; the champion is {champion}"
    elif rolled.answered_by_candidate and stage in ("infra_check", "shadow"):
        return f"answered {rolled.answered_by_candidate} requests"
    if rolled.failed and rolled.killed is None:
        return f"{rolled.failed} requests failed"
    return None


def show(console: Console, rows: Sequence[Rolled]) -> None:
    """The rollouts as a table."""
    table = Table(
        *("candidate", "stopped in", "decision", "s to roll back", "s in all", "requests", "failed"),
        *("by candidate", "p50 ms", "p99 ms", "killed"),
    )
    for row in rows:
        back = "" if row.seconds_to_roll_back is None else f"{row.seconds_to_roll_back:.2f}"
        table.add_row(
            *(row.candidate, row.stage, row.decision, back, f"{row.seconds:.0f}", str(row.requests)),
            *(str(row.failed), str(row.answered_by_candidate)),
            *(f"{row.p50_milliseconds:.1f}", f"{row.p99_milliseconds:.1f}", row.killed or ""),
        )
    console.print(table)
    for row in rows:
        console.print(f"{row.candidate}: {row.reason}", markup=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 1 when a rollout ended otherwise than it should."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollout", description=__doc__)
    parser.add_argument("--use-case", default="flight_delay")
    parser.add_argument("--requests-per-second", type=float, default=100.0)
    parser.add_argument("--bake-minutes", type=float, default=0.75)
    parser.add_argument("--only", nargs="*", choices=sorted(EXPECTED), help="these candidates alone")
    parser.add_argument(
        "--kill",
        nargs="*",
        choices=KILLED,
        default=(),
        help="kill these, or all three, each in a rollout of another good candidate",
    )
    arguments = parser.parse_args(argv)
    settings, spec = load_settings(), use_case(arguments.use_case)
    console = Console(soft_wrap=True, width=160)
    # The good one last: the others are measured against the champion that was trained.
    names = [name for name in [*list(changes(spec))[1:], "good"] if name in (arguments.only or EXPECTED)]
    rows: list[Rolled] = []
    problems: dict[str, str] = {}
    with (
        tempfile.TemporaryDirectory(prefix="bench-rollout-", dir=settings.scratch_dir) as scratch,
        AirflowApi(settings.airflow_url, LOGIN, password(settings)) as api,
    ):
        champion = version_behind(settings, spec.model_name, CHAMPION)
        if champion is None:
            raise SystemExit(f"expected a champion of {spec.name}; found none. Next: make run.")
        versions = {name: register(settings, spec, champion, name, Path(scratch)) for name in names}
        kills = KILLED if arguments.kill == [] else arguments.kill
        more = {kill: register(settings, spec, champion, "good", Path(scratch)) for kill in kills}
        console.print(f"registered: {versions} {more}")
        api.unpause(f"{spec.name}_rollout")
        with load(settings, spec, arguments.requests_per_second, Path(scratch) / "load") as answers:
            for kill, name, version in [
                *((None, name, versions[name]) for name in names),
                *((kill, "good", version) for kill, version in more.items()),
            ]:
                rolled = roll_out(settings, spec, api, answers, name, version, arguments.bake_minutes, kill)
                rows.append(rolled)
                console.print(str(rolled), markup=False)
                if problem := problem_of(settings, spec, rolled):
                    problems[f"{name} {kill or ''}".strip()] = problem
    show(console, rows)
    for name, problem in problems.items():
        console.print(f"PROBLEM {name}: {problem}", markup=False)
    print(json.dumps({"rollouts": [row._asdict() for row in rows], "problems": problems}))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
