"""What `make run` shows at its end: for people, and as one JSON object on the last line.

Belongs here: gathering and printing. Does not belong here: running anything (`loop`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from airloop.errors import StackError
from airloop.intervals import Interval
from airloop.prediction_request import example_body
from airloop.settings import Settings
from airloop.upcoming import upcoming_requests
from airloop.use_cases.spec import UseCase


class StageTime(BaseModel):
    """One task of the loop and its time."""

    model_config = ConfigDict(frozen=True)

    dag_id: str
    task_id: str
    seconds: float


class Measured(BaseModel):
    """A figure of the model on its test rows, beside the baseline's."""

    model_config = ConfigDict(frozen=True)

    words: str
    test: float
    baseline: float


class Summary(BaseModel):
    """The outcome of `make run`."""

    model_config = ConfigDict(frozen=True)

    use_case: str
    as_of: str
    total_seconds: float
    """From the start of the command to the summary, set-up excluded; of the call that did the work."""
    stages: tuple[StageTime, ...]
    model_version: int
    candidate_accepted: bool
    figures: dict[str, Measured]
    """The one that ranks candidates, and the loss."""
    prediction: dict[str, Any]
    """The gateway's answer; of a use case that scores in batches, what the scores of a day came to."""
    curl: str
    """What repeats it; empty where there is no gateway to ask."""
    peak_memory_gib: float
    """Peak of the sum of the stack's proportional set sizes while the loop ran."""
    reused: bool
    """Whether the runs were there already; then times and memory are those of the call that made them."""
    addresses: dict[str, str]


def ask_gateway(settings: Settings, spec: UseCase, as_of: datetime) -> tuple[str, dict[str, Any]]:
    """One request for an event soon after `as_of`, as a curl command, and the gateway's answer to it.

    Where no such event is known beforehand, it is the spec's example. Raises `StackError` when the gateway
    refuses.
    """
    soon = Interval(as_of + spec.prediction_lead, as_of + spec.prediction_lead + timedelta(hours=12))
    known = upcoming_requests(settings, spec, soon, 1) if spec.event_table else []
    body = known[0] if known else _example(spec, soon.start)
    url = f"{settings.gateway_url}/v1/{spec.name}/predict"
    headers = {"content-type": "application/json"}
    answer = httpx.post(url, content=body, headers=headers, timeout=30)
    if answer.status_code != 200:
        raise StackError(
            expected=f"the gateway to answer {body}",
            found=f"status {answer.status_code}: {answer.text[:300]}",
            next_step="look at `make status` and at the log of the gateway",
        )
    curl = f"curl -s {url} -H 'content-type: application/json' -d {shlex.quote(body)}"
    return curl, answer.json()


def _example(spec: UseCase, at: datetime) -> str:
    """The spec's example, about `at` on the wall clock of its place."""
    body = example_body(spec)
    place = datetime.fromisoformat(str(body[spec.event_field])).tzinfo
    return json.dumps(body | {spec.event_field: at.astimezone(place).isoformat()})


def figures_of(settings: Settings, spec: UseCase, version: int) -> dict[str, Measured]:
    """The figure that ranks candidates and the loss, by name, from the run behind the registered `version`.

    Raises `StackError` when one is missing.
    """
    # By REST: MLflow's client takes seconds to import and writes to the caller's home folder.
    with httpx.Client(base_url=f"{settings.tracking_uri}/api/2.0/mlflow", timeout=30) as mlflow:
        asked = {"name": spec.model_name, "version": str(version)}
        registered = mlflow.get("/model-versions/get", params=asked).raise_for_status().json()
        run_id = registered["model_version"]["run_id"]
        run = mlflow.get("/runs/get", params={"run_id": run_id}).raise_for_status().json()
    found = {metric["key"]: metric["value"] for metric in run["run"]["data"].get("metrics", ())}
    target = spec.label.target
    # Of a number both may be one.
    figures = list(dict.fromkeys((target.figures[0], target.loss)))
    wanted = [f"{whose}_{figure.name}" for figure in figures for whose in ("test", "baseline")]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise StackError(
            expected=f"the metrics {', '.join(wanted)} on the run of version {version}",
            found=f"no {', '.join(missing)}",
            next_step="train and evaluate again",
        )
    return {
        figure.name: Measured(
            words=figure.words,
            test=float(found[f"test_{figure.name}"]),
            baseline=float(found[f"baseline_{figure.name}"]),
        )
        for figure in figures
    }


def show(summary: Summary, login: Mapping[str, str], console: Console) -> None:
    """Print the summary for people, then the JSON object as the last line."""
    table = Table("stage", "seconds", title=f"{summary.use_case} as of {summary.as_of}")
    table.columns[1].justify = "right"
    for stage in summary.stages:
        table.add_row(f"{stage.dag_id}.{stage.task_id}", f"{stage.seconds:.1f}")
    console.print(table)
    if summary.reused:
        console.print("Nothing had to be done; the times are those of the run that did it.")
    if not summary.candidate_accepted:
        console.print("The gate rejected the candidate; an earlier model keeps serving.")
    console.print(
        f"total {summary.total_seconds:.0f} s, peak memory {summary.peak_memory_gib:.2f} GiB\n"
        f"serving: {summary.use_case} version {summary.model_version}\n"
        + "".join(
            f"  test {one.words} {one.test:.4f}, baseline {one.baseline:.4f}\n"
            for one in summary.figures.values()
        )
        + f"{'a prediction' if summary.curl else 'scores of a day'}: {json.dumps(summary.prediction)}"
    )
    if summary.curl:
        console.print("ask again:")
        # Without markup or wrapping, so that it can be copied.
        console.print(summary.curl, soft_wrap=True, markup=False, highlight=False)
    console.print(
        f"Airflow  {summary.addresses['airflow']}  (login {login['username']} / {login['password']})\n"
        f"Page     {summary.addresses['airflow']}/plugin/airloop/airloop/#{summary.use_case}\n"
        f"Gateway  {summary.addresses['gateway']}\n"
        f"MLflow   {summary.addresses['mlflow']}",
        markup=False,
        highlight=False,
    )
    print(summary.model_dump_json(), flush=True)
