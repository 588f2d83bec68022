"""Airflow for the DAG tests: an empty home of its own, set before anything imports Airflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
HOME = tempfile.mkdtemp(prefix="airloop-dags-")
os.environ.update(
    AIRFLOW_HOME=HOME,
    AIRFLOW__CORE__DAGS_FOLDER=str(REPOSITORY / "dags"),
    AIRFLOW__CORE__PLUGINS_FOLDER=str(REPOSITORY / "plugins"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{HOME}/airflow.db",
)


@pytest.fixture(scope="session")
def dagbag():
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(str(REPOSITORY / "dags"))


@pytest.fixture(scope="session")
def dags(dagbag):
    assert dagbag.import_errors == {}
    return dagbag.dags


def run_in(folder: Path, *command: str, dags: Path = REPOSITORY / "dags") -> str:
    """Run `command` with `folder` as Airflow's home, and the DAGs of `dags`; returns what it printed."""
    paths = (REPOSITORY, REPOSITORY / "plugins", REPOSITORY / "src")
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
        "AIRFLOW__OPENLINEAGE__DISABLED": "True",
        "AIRLOOP_STATE_DIR": str(folder / "state"),
        # Runs begin by asking whether MLflow answers; over a file there is nobody to ask.
        "AIRLOOP_MLFLOW_URI": f"sqlite:///{folder}/mlflow.db",
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
    }
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Airflow database without a run."""
    folder = tmp_path_factory.mktemp("migrated")
    run_in(folder, str(Path(sys.executable).with_name("airflow")), "db", "migrate")
    return folder / "airflow.db"


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    """Airflow's Variables, which outside a task have no server to go to."""
    from airloop_airflow import cost, incidents

    found: dict[str, str] = {}

    class Variable:
        @staticmethod
        def get(key, default=None, deserialize_json=False):
            if key not in found:
                return default
            return json.loads(found[key]) if deserialize_json else found[key]

        @staticmethod
        def set(key, value, description=None, serialize_json=False):
            found[key] = json.dumps(value)

        @staticmethod
        def delete(key):
            del found[key]

    monkeypatch.setattr(incidents, "Variable", Variable)
    monkeypatch.setattr(cost, "Variable", Variable)
    return found


@pytest.fixture
def receiver():
    """An HTTP server on loopback in Slack's place."""
    received = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(self.server.status)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    server.status, server.received = 200, received
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def slack(receiver, monkeypatch):
    """The receiver, behind the connection that alerts go to."""
    url = f"http://127.0.0.1:{receiver.server_port}"
    connection = {"conn_type": "slackwebhook", "host": url, "password": "/T000/B000/secret"}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_ONCALL", json.dumps(connection))
    return receiver


@pytest.fixture
def slack_api(monkeypatch):
    """Slack's API on loopback, as far as alerts use it, behind the connection that they go to."""
    received: list[tuple[str, dict]] = []

    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.server.busy:
                self.server.busy -= 1
                self.send_response(429)
                self.send_header("Retry-After", "1")
                answer = {"ok": False, "error": "ratelimited"}
            elif self.server.gone and "thread_ts" in body:
                received.append((self.path.rsplit("/", 1)[-1], body))
                self.send_response(200)
                answer = {"ok": False, "error": "is_archived"}
            else:
                assert self.headers["authorization"] == "Bearer xoxb-token"
                received.append((self.path.rsplit("/", 1)[-1], body))
                self.send_response(200)
                posted = sum("thread_ts" not in message and "ts" not in message for _, message in received)
                answer = {"ok": True, "channel": "C1", "ts": body.get("ts") or f"1.{posted:06}"}
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Api)
    server.received, server.busy, server.gone = received, 0, False
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    extra = {
        "base_url": f"http://127.0.0.1:{server.server_port}/api/",
        "channel": "#oncall",
        "mentions": {"ml-platform": "<!subteam^S1>"},
    }
    connection = {"conn_type": "slack", "password": "xoxb-token", "extra": json.dumps(extra)}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_ONCALL", json.dumps(connection))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def later(monkeypatch):
    """Has time pass for alerts."""
    from airloop_airflow import alerts

    clock = SimpleNamespace(now=datetime(2026, 11, 20, 12, tzinfo=UTC))

    def forward(**by: float) -> None:
        clock.now += timedelta(**by)

    monkeypatch.setattr(alerts, "datetime", SimpleNamespace(now=lambda _: clock.now))
    return forward
