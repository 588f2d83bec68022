"""Alerts, through the real Slack client, to an HTTP receiver on loopback in Slack's place."""

from __future__ import annotations

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from airloop_airflow.alerts import Alert, alert_on_failure, send

ALERT = Alert(
    severity="page",
    title="some_features.audit failed",
    owner="ml-platform",
    dag_id="some_features",
    run_id="manual__1",
    detail="AuditError: expected 36 expectations to hold; found 1 that does not",
    runbook="docs/runbooks/features_failed.md",
)


@pytest.fixture
def receiver():
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
    url = f"http://127.0.0.1:{receiver.server_port}"
    connection = {"conn_type": "slackwebhook", "host": url, "password": "/T000/B000/secret"}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_ONCALL", json.dumps(connection))
    return receiver


def test_an_alert_reaches_slack_with_severity_owner_run_and_runbook(slack):
    send(ALERT)
    (message,) = slack.received
    for part in (
        "page",
        "ml-platform",
        ALERT.title,
        ALERT.detail,
        ALERT.runbook,
        "/dags/some_features/runs/",
    ):
        assert part in message["text"]


def test_a_failed_task_alerts_with_its_exception(slack):
    context = {
        "ti": SimpleNamespace(dag_id="some_features", run_id="manual__1", task_id="audit"),
        "dag": SimpleNamespace(dag_id="some_features", owner="ml-platform"),
        "exception": RuntimeError("the feed is stale"),
    }
    alert_on_failure(context)
    (message,) = slack.received
    assert "some_features.audit failed" in message["text"]
    assert "the feed is stale" in message["text"]
    assert "docs/runbooks/features_failed.md" in message["text"]


def test_without_a_connection_the_alert_stays_in_the_log(caplog, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_SLACK_ONCALL", raising=False)
    with caplog.at_level(logging.WARNING, logger="airloop_airflow.alerts"):
        send(ALERT)
    assert ALERT.title in caplog.text
    assert "no connection slack_oncall" in caplog.text


def test_an_alert_that_cannot_be_sent_is_logged_and_raises_nothing(slack, caplog):
    slack.status = 500
    with caplog.at_level(logging.ERROR, logger="airloop_airflow.alerts"):
        send(ALERT)
    assert "alert could not be sent" in caplog.text
