"""Runs docker-compose.yaml and the whole loop on it: `python -m tests.cluster`, which is `make test-cluster`.

Belongs here: bringing the platform up, the loop of a use case through its Airflow, predictions through nginx,
what must hold then, and one line of JSON. Does not belong here: how a service is run (`podman`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import httpx
from rich.console import Console

from airloop.intervals import parse_instant
from airloop.stack.airflow_api import AirflowApi
from airloop.stack.loop import LoopResult, Windows, run_loop
from airloop.use_cases.catalogue import use_case
from tests.cluster.podman import NOT_RUN, REPOSITORY, Cluster, ClusterError

PORTS = {"AIRLOOP_AIRFLOW_PORT": "28080", "AIRLOOP_MLFLOW_PORT": "25000", "AIRLOOP_GATEWAY_PORT": "28000"}
AS_OF = "2013-11-11"
"""Five weeks that are alike: after weeks of another kind the gate would rightly reject the candidate."""
WINDOWS = Windows(train_days=21, validation_days=5, test_days=7)
PREDICTIONS = 40
BODY = """
import sys
from datetime import datetime, timedelta
from airloop.intervals import Interval
from airloop.settings import load_settings
from airloop.upcoming import upcoming_requests
from airloop.use_cases.catalogue import use_case
spec, as_of = use_case(sys.argv[1]), datetime.fromisoformat(sys.argv[2])
soon = as_of + spec.prediction_lead
print(upcoming_requests(load_settings(), spec, Interval(soon, soon + timedelta(hours=12)), 1)[0])
"""
APPLICATIONS = """
import json, urllib.request
answer = json.load(urllib.request.urlopen("http://spark-master:8080/json/"))
print(json.dumps({"workers": answer["aliveworkers"], "completed": len(answer["completedapps"])}))
"""
VERSIONS = {
    "airflow": ("airflow-api-server", "airflow version"),
    "celery": ("worker-data", "celery --version"),
    "kafka": ("kafka", "ls /opt/kafka/libs | sed -n 's/.*kafka_2.13-\\(.*\\).jar/\\1/p'"),
    "mlflow": ("mlflow", "mlflow --version"),
    "nginx": ("nginx", "nginx -v 2>&1"),
    "postgres": ("postgres", "postgres --version"),
    "prometheus": ("prometheus", "prometheus --version 2>&1 | head -1"),
    "python": ("worker-model", "python --version"),
    "redis": ("redis", "redis-server --version"),
    "s3": ("s3", "cat /airloop/.airloop/stamps/versitygw"),
    "spark": ("spark-master", "python -c 'import pyspark; print(pyspark.__version__)'"),
}


def make_cluster(console: Console) -> Cluster:
    """The cluster of this checkout, with secrets and certificates of its own."""
    secrets = REPOSITORY / ".airloop" / "cluster" / "secrets"
    subprocess.run(["bash", "scripts/make_secrets.sh", str(secrets)], cwd=REPOSITORY, check=True)
    os.environ["SSL_CERT_FILE"] = str(secrets / "authorities")
    return Cluster("airloop-cluster", secrets, PORTS, tell=console.print)


def airflow_of(cluster: Cluster) -> AirflowApi:
    """The cluster's Airflow, as its admin."""
    password = (cluster.secrets / "airflow_password").read_text("utf-8")
    return AirflowApi(f"https://localhost:{PORTS['AIRLOOP_AIRFLOW_PORT']}", "admin", password)


def loop(cluster: Cluster, name: str, console: Console, day: str = AS_OF) -> tuple[LoopResult, datetime]:
    """The features, training and rollout DAGs of the use case `name`, as of `day`."""
    as_of = parse_instant(day)
    with airflow_of(cluster) as api:
        return run_loop(api, use_case(name), as_of, console, WINDOWS), as_of


def predict(cluster: Cluster, name: str, as_of: datetime) -> dict[str, Any]:
    """Predictions through nginx: how many, by which versions, and how many each model server answered."""
    body = (
        cluster.execute("worker-data", "python", "-c", BODY, name, as_of.isoformat()).strip().splitlines()[-1]
    )
    before = {server: answered(cluster, server) for server in ("model-server-1", "model-server-2")}
    url = f"https://localhost:{PORTS['AIRLOOP_GATEWAY_PORT']}/v1/{name}/predict"
    answers: Counter[str] = Counter()
    with httpx.Client(timeout=30, headers={"content-type": "application/json"}) as client:
        for _ in range(PREDICTIONS):
            answer = client.post(url, content=body)
            answer.raise_for_status()
            answers[str(answer.json()["model"]["version"])] += 1
    after = {server: answered(cluster, server) for server in before}
    return {
        "answered": sum(answers.values()),
        "by_version": dict(answers),
        "by_model_server": {server: after[server] - before[server] for server in before},
    }


def answered(cluster: Cluster, server: str) -> int:
    """Requests that the model server has answered well, by its own metrics."""
    page = cluster.execute(
        server, "sh", "-c", "exec wget -qO- http://localhost:8501/monitoring/prometheus/metrics", check=False
    )
    lines = [line for line in page.splitlines() if "request_count" in line and 'status="OK"' in line]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0 when everything held, else 1 with what did not."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--use-case", default="flight_delay")
    parser.add_argument("--as-of", default=AS_OF, help="day to look back from")
    parser.add_argument("--keep", action="store_true", help="leave it running; --down ends it")
    parser.add_argument("--again", action="store_true", help="go on with what --keep left running")
    parser.add_argument("--down", action="store_true", help="only end what --keep left")
    flags = parser.parse_args(argv)
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)
    cluster = make_cluster(console)
    if flags.down:
        cluster.down(volumes=True)
        return 0
    started = time.monotonic()
    try:
        if not flags.again:
            cluster.down(volumes=True)
        ready = cluster.up()
        up_seconds = round(time.monotonic() - started, 1)
        result, as_of = loop(cluster, flags.use_case, console, flags.as_of)
        prediction = predict(cluster, flags.use_case, as_of) if result.accepted else {}
        spark = json.loads(cluster.execute("spark-master", "python", "-c", APPLICATIONS).splitlines()[-1])
        versions = {
            name: cluster.execute(service, "sh", "-c", command, check=False).strip().splitlines()[-1:]
            for name, (service, command) in VERSIONS.items()
        }
    except ClusterError as error:
        console.print(str(error), markup=False)
        return 1
    finally:
        if not flags.keep:
            cluster.down(volumes=True)
    problems = [] if result.accepted else ["the candidate was rejected"]
    if spark["workers"] != 2 or not spark["completed"]:
        problems.append(f"Spark's cluster did not do the work: {spark}")
    if prediction and min(prediction["by_model_server"].values()) == 0:
        problems.append(f"one of the model servers answered nothing: {prediction['by_model_server']}")
    for name, seconds in sorted(ready.items()):
        console.print(f"{name:22} ready after {seconds:6.1f} s")
    for stage in result.stages:
        console.print(f"{stage.dag_id}.{stage.task_id:24} {stage.seconds:6.1f} s")
    for problem in problems:
        console.print(f"NOT RIGHT: {problem}")
    line = {
        "components": {name: " ".join(found) for name, found in versions.items()},
        "not_run": sorted(NOT_RUN),
        "services": len(ready),
        "up_seconds": up_seconds,
        "total_seconds": round(time.monotonic() - started, 1),
        "spark": spark,
        "prediction": prediction,
        "problems": problems,
    }
    print(json.dumps(line))
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
