"""Fixture: everything that Prometheus reads, at work, and a Prometheus with the repository's configuration.

The gateway, the model server, Airflow and the exporter of its metrics are the product's own; only addresses
and the interval of reading are replaced.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from airloop.prediction_log.spool import Spool
from airloop.prediction_request import example_body
from airloop.settings import REPOSITORY, Settings
from airloop.stack.programs import environment, programs
from airloop.use_cases.flight_delay import USE_CASE
from serving.gateway.feedback import example
from serving.model_config import config_message
from tests.serving.gateway.conftest import VERSION, gateway_app, listening, serve_champion
from tests.serving.gateway.small_store import apply_features, fill_features, open_small_store
from tests.serving.rollout.stack import free_port, save_model, wait_until

OBSERVABILITY = REPOSITORY / "serving" / "observability"
EXPORTER = REPOSITORY / ".airloop" / "bin" / "statsd_exporter"
SCRAPE_SECONDS = 1
FIRST_ROUND = (
    'airloop_gateway_requests_total{status="202"}',
    ":tensorflow:serving:runtime_latency_count",
    ":tensorflow:serving:batching_session:queuing_latency_count",
    "airflow_scheduler_loop_duration_seconds_count",
    'airflow_dag_run_duration_seconds_count{dag_id="failing"}',
)
"""What comes last of each that is read; a series that is there only once does not grow yet."""


class Prometheus:
    """A running Prometheus, asked over HTTP."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query that are numbers; raises for one that Prometheus refuses."""
        answer = self._client.get("/api/v1/query", params={"query": expression}).json()
        if answer["status"] != "success":
            raise ValueError(f"{answer['error']}: {expression}")
        return [sample for sample in answer["data"]["result"] if sample["value"][1] != "NaN"]

    def without_data(self, expressions: Sequence[str], seconds: float) -> list[str]:
        """Those of `expressions` that have returned nothing by then."""
        left, deadline = list(expressions), time.monotonic() + seconds
        while True:
            left = [expression for expression in left if not self.query(expression)]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(SCRAPE_SECONDS)


@contextmanager
def running(
    command: Sequence[str], log: Path, variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, ended on leaving."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield started
    finally:
        assert started.stdin is not None
        started.stdin.close()
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def prometheus_with(folder: Path, targets: Mapping[str, str]) -> Path:
    """The repository's Prometheus configuration with other addresses, read every second."""
    document = yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text("utf-8"))
    document["global"] = dict.fromkeys(document["global"], f"{SCRAPE_SECONDS}s")
    document["rule_files"] = [str(OBSERVABILITY / pattern) for pattern in document["rule_files"]]
    for configured in (*document["scrape_configs"], *document["alerting"]["alertmanagers"]):
        for static in configured["static_configs"]:
            static["targets"] = [targets[target] for target in static["targets"]]
    written = folder / "prometheus.yml"
    written.write_text(yaml.safe_dump(document), encoding="utf-8")
    return written


def _answers(url: str) -> Callable[[], bool]:
    def asked() -> bool:
        try:
            return httpx.get(url, timeout=5, trust_env=False).status_code < 500
        except httpx.TransportError:
            return False

    return asked


def _traffic(client: httpx.Client) -> None:
    predict = f"/v1/{USE_CASE.name}/predict"
    known = example_body(USE_CASE)
    # Nothing is known of an airport that is not there.
    unknown = {name: "XXX" if name in USE_CASE.entities else value for name, value in known.items()}
    for body in (known, unknown):
        for _ in range(3):
            answer = client.post(predict, json=body)
            assert answer.status_code == 200, answer.text
    assert client.post(predict, json={}).status_code == 422
    assert (
        client.post(f"/v1/{USE_CASE.name}/feedback", json=example(USE_CASE.label.target)).status_code == 202
    )


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has read everything twice or more, once traffic and runs had left their traces."""
    folder = tmp_path_factory.mktemp("watched")
    names = ("statsd", "exporter", "prometheus", "alertmanager")
    port = {name: free_port() for name in names}
    settings = Settings(
        state_dir=folder / "state",
        statsd_address=f"127.0.0.1:{port['statsd']}",
        airflow_port=free_port(),
        gateway_port=free_port(),
        model_server_grpc_port=free_port(),
        model_server_rest_port=free_port(),
    )
    for name in ("home", "tmp", "scratch/results", "models"):
        (settings.state_dir / name).mkdir(parents=True)
    variables = environment(settings) | {
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).with_name("dags")),
        "AIRFLOW__OPENLINEAGE__DISABLED": "True",
        "AIRFLOW__SCHEDULER__DAGRUN_METRICS_INTERVAL": "0.1",
        "AIRFLOW__SCHEDULER__POOL_METRICS_INTERVAL": "0.1",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "0",
        "PYTHONPATH": ":".join(str(REPOSITORY / name) for name in ("", "src", "plugins")),
    }
    with ExitStack() as stack:
        exporter = [
            str(EXPORTER),
            f"--statsd.mapping-config={OBSERVABILITY / 'statsd_mapping.yml'}",
            f"--statsd.listen-udp=127.0.0.1:{port['statsd']}",
            "--statsd.listen-tcp=",
            f"--web.listen-address=127.0.0.1:{port['exporter']}",
        ]
        stack.enter_context(running(exporter, folder / "exporter.log"))
        wait_until(_answers(f"http://127.0.0.1:{port['exporter']}"), seconds=20, what="the exporter answers")
        airflow = stack.enter_context(
            running(
                [sys.executable, "-m", "tests.metrics.airflow_side", str(folder)],
                folder / "airflow.log",
                variables,
            )
        )
        settings.model_config_file.write_text(str(config_message({})), encoding="utf-8")
        server = next(program for program in programs(settings) if program.name == "model-server")
        stack.enter_context(running(server.command, folder / "model_server.log", variables))
        save_model(USE_CASE, -0.5, settings.models_dir / USE_CASE.model_name / str(VERSION))
        store = open_small_store(settings)
        apply_features(store, USE_CASE, folder)
        fill_features(store, USE_CASE)
        assert server.health_url is not None
        wait_until(_answers(server.health_url), seconds=120, what="the model server answers")
        spools = {name: stack.enter_context(_spool(folder / name)) for name in ("spool", "outcomes")}
        gateway = stack.enter_context(listening(gateway_app(settings, **spools)))
        configured = prometheus_with(
            folder,
            {
                "gateway:8000": gateway.removeprefix("http://"),
                "model-server:8501": f"127.0.0.1:{settings.model_server_rest_port}",
                "statsd-exporter:9102": f"127.0.0.1:{port['exporter']}",
                "localhost:9090": f"127.0.0.1:{port['prometheus']}",
                "alertmanager:9093": f"127.0.0.1:{port['alertmanager']}",
            },
        )
        command = [
            "prometheus",
            f"--config.file={configured}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port['prometheus']}",
        ]
        stack.enter_context(running(command, folder / "prometheus.log"))
        prometheus = Prometheus(f"http://127.0.0.1:{port['prometheus']}")
        wait_until(prometheus.ready, seconds=30, what="Prometheus is ready")
        client = stack.enter_context(httpx.Client(base_url=gateway, timeout=30, trust_env=False))
        predict = f"/v1/{USE_CASE.name}/predict"
        for _ in range(2):
            # There is no champion yet.
            assert client.post(predict, json=example_body(USE_CASE)).status_code == 503
        serve_champion(settings, VERSION)
        _traffic(client)
        # How fast something grows takes two readings.
        unread = prometheus.without_data(FIRST_ROUND, 240)
        assert not unread, f"{unread}\n{(folder / 'airflow.log').read_text('utf-8')[-6000:]}"
        _traffic(client)
        airflow.communicate(b"read\n", timeout=120)
        assert airflow.returncode == 0, (folder / "airflow.log").read_text("utf-8")[-6000:]
        yield prometheus


@contextmanager
def _spool(folder: Path) -> Iterator[Spool]:
    spool = Spool(folder)
    try:
        yield spool
    finally:
        spool.close()


def rules() -> list[dict[str, Any]]:
    """Every rule, alerting or recording."""
    return [
        rule
        for path in sorted((OBSERVABILITY / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
        for rule in group["rules"]
    ]


def dashboards() -> dict[str, dict[str, Any]]:
    """Every dashboard, by its file's name."""
    found = sorted((OBSERVABILITY / "grafana" / "dashboards").glob("*.json"))
    return {path.stem: json.loads(path.read_text("utf-8")) for path in found}
