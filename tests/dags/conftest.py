"""Airflow for the DAG tests: an empty home of its own, set before anything imports Airflow."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

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
