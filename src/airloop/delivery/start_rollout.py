"""Start the rollout of a promoted version in the environment that it came to; once, however often run.

    python -m airloop.delivery.start_rollout --use-case NAME --promoted promoted.json --airflow-url URL \\
      --airflow-password-file FILE

Belongs here: asking the target's Airflow. Does not belong here: the rollout's steps, which are its DAG's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx

from airloop.errors import EXIT_PERMANENT, AirloopError
from airloop.references import PromotedModel
from airloop.stack.airflow_api import AirflowApi
from airloop.use_cases.catalogue import use_case


def start_rollout(api: AirflowApi, dag_id: str, model: PromotedModel) -> str:
    """The id of the run that rolls `model` out; the same run if there is one already."""
    run_id = f"promoted__version_{model.version}"
    if api.run(dag_id, run_id) is None:
        api.trigger(dag_id, run_id, {"version": model.version})
    return run_id


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0, or `EXIT_PERMANENT` when Airflow refuses."""
    parser = argparse.ArgumentParser(description="Start the rollout of a promoted version.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--promoted", type=Path, required=True, help="result of promote_model")
    parser.add_argument("--airflow-url", required=True, help="Airflow's base address")
    parser.add_argument("--airflow-login", default="admin", help="a user who may trigger DAGs")
    parser.add_argument("--airflow-password-file", type=Path, required=True, help="file with the password")
    arguments = parser.parse_args(argv)
    model = PromotedModel.model_validate_json(arguments.promoted.read_text("utf-8"))
    dag_id = f"{use_case(arguments.use_case).name}_rollout"
    password = arguments.airflow_password_file.read_text("utf-8").strip()
    try:
        with AirflowApi(arguments.airflow_url, arguments.airflow_login, password) as api:
            print(f"{dag_id}: run {start_rollout(api, dag_id, model)} rolls version {model.version} out")
    except (AirloopError, httpx.TransportError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_PERMANENT
    return 0


if __name__ == "__main__":
    sys.exit(main())
