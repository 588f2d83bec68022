"""Whether a deployment works right after it was changed: asked from outside, as its users would.

    python -m airloop.delivery.smoke --use-case NAME --gateway-url URL --airflow-url URL \\
      --airflow-password-file FILE [--dag-version COMMIT] [--model-version N]

Belongs here: a few questions whose answers show that the parts run, agree, and are the ones that were
deployed. Does not belong here: waiting for a rollout, load, or the quality of predictions.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from airloop.errors import EXIT_PERMANENT, AirloopError, SmokeError
from airloop.prediction_request import example_body
from airloop.stack.airflow_api import AirflowApi
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase

_TIMEOUT_SECONDS: Final = 30
_BETWEEN_TRIES_SECONDS: Final = 5.0


def airflow_is_well(health: dict[str, Any]) -> None:
    """Raises `SmokeError` naming each part of Airflow that does not report itself healthy."""
    parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
    unwell = [f"{part} {status}" for part in parts if (status := _status(health, part)) != "healthy"]
    if unwell:
        raise SmokeError(
            expected=f"Airflow's {', '.join(parts)} to be healthy",
            found=", ".join(unwell),
            next_step="read the log of each; the heartbeat of one that was just started takes a few seconds",
        )


def _status(health: dict[str, Any], part: str) -> str:
    return str((health.get(part) or {}).get("status"))


def dags_are_there(api: AirflowApi, spec: UseCase, dag_version: str | None) -> None:
    """Raises `SmokeError` when a DAG file is broken, or the DAGs are not of the commit `dag_version`."""
    if errors := api.import_errors():
        raise SmokeError(
            expected="DAG files without import errors",
            found="; ".join(errors),
            next_step="deploy the commit before, then mend it (scripts/ci/deploy_dags.sh)",
        )
    dag_id = f"{spec.name}_training"
    if not api.has_dag(dag_id):
        raise SmokeError(
            expected=f"the DAG {dag_id}", found="none", next_step="read the log of the DAG processor"
        )
    found = api.bundle_version(dag_id)
    if dag_version is not None and found != dag_version:
        raise SmokeError(
            expected=f"{dag_id} of commit {dag_version}",
            found=f"commit {found}",
            next_step="wait for the DAG processor's refresh; then see which ref its bundle tracks",
        )


def gateway_answers(client: httpx.Client, spec: UseCase, model_version: int | None) -> int:
    """The version that answers an example request; raises `SmokeError` when none does, or another one."""
    ready = client.get("/readyz")
    if ready.status_code != 200:
        raise SmokeError(
            expected="the gateway to be ready",
            found=f"status {ready.status_code}: {ready.text[:300]}",
            next_step="do what the answer says; without a champion the rollout DAG has to run first",
        )
    answer = client.post(f"/v1/{spec.name}/predict", json=example_body(spec))
    version = _version(answer)
    if answer.status_code != 200 or version is None:
        raise SmokeError(
            expected=f"a prediction of {spec.name}",
            found=f"status {answer.status_code}: {answer.text[:300]}",
            next_step="do what the answer says, or read the gateway's log",
        )
    if model_version is not None and version != model_version:
        raise SmokeError(
            expected=f"version {model_version} to answer",
            found=f"version {version}",
            next_step=f"look at the run of {spec.name}_rollout: a canary answers only its share",
        )
    return version


def _version(answer: httpx.Response) -> int | None:
    try:
        return int(answer.json()["model"]["version"])
    except (ValueError, KeyError, TypeError):
        return None


def tried(question: Callable[[], Any], within_seconds: float) -> Any:
    """What `question` answers, asked again while it fails, until `within_seconds` are over."""
    deadline = time.monotonic() + within_seconds
    while True:
        try:
            return question()
        except (httpx.TransportError, AirloopError):
            if time.monotonic() >= deadline:
                raise
            time.sleep(min(_BETWEEN_TRIES_SECONDS, max(0.1, deadline - time.monotonic())))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; prints a line for each answer. Returns 0, or `EXIT_PERMANENT`."""
    parser = argparse.ArgumentParser(description="Ask a deployment whether it works.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--gateway-url", required=True, help="the gateway's base address")
    parser.add_argument("--gateway-key-file", type=Path, help="file with an API key of role predict")
    parser.add_argument("--airflow-url", required=True, help="Airflow's base address")
    parser.add_argument("--airflow-login", default="admin", help="a user who may look")
    parser.add_argument("--airflow-password-file", type=Path, required=True, help="file with the password")
    parser.add_argument("--authority", type=Path, help="certificate (PEM) behind the servers' own")
    parser.add_argument("--dag-version", help="commit that the DAGs must be of")
    parser.add_argument("--model-version", type=int, help="version that must answer")
    parser.add_argument("--within-seconds", type=float, default=300, help="how long each may take")
    arguments = parser.parse_args(argv)
    spec = use_case(arguments.use_case)
    verify: Any = str(arguments.authority) if arguments.authority else True
    headers = {}
    if arguments.gateway_key_file:
        headers["Authorization"] = f"Bearer {arguments.gateway_key_file.read_text('utf-8').strip()}"
    password = arguments.airflow_password_file.read_text("utf-8").strip()
    try:
        with (
            httpx.Client(
                base_url=arguments.gateway_url, headers=headers, timeout=_TIMEOUT_SECONDS, verify=verify
            ) as gateway,
            AirflowApi(arguments.airflow_url, arguments.airflow_login, password, verify=verify) as api,
        ):
            within = arguments.within_seconds
            tried(lambda: airflow_is_well(api.health()), within)
            print("Airflow: metadata database, scheduler, triggerer and DAG processor are healthy")
            tried(lambda: dags_are_there(api, spec, arguments.dag_version), within)
            print(f"DAGs: no import error, {spec.name} is there{_at(arguments.dag_version)}")
            if spec.is_online:
                version = tried(lambda: gateway_answers(gateway, spec, arguments.model_version), within)
                print(f"gateway: version {version} of {spec.model_name} answers")
            else:
                print(f"gateway: not asked, {spec.name} is scored in batches")
    except (AirloopError, httpx.TransportError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_PERMANENT
    return 0


def _at(dag_version: str | None) -> str:
    return f" at {dag_version}" if dag_version else ""


if __name__ == "__main__":
    sys.exit(main())
