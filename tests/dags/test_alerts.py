"""Alerts, through the real Slack client, to an HTTP receiver on loopback in Slack's place."""

from __future__ import annotations

import logging
from types import SimpleNamespace

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


def test_blocks_come_with_the_text_and_end_with_severity_owner_and_runbook(slack):
    block = {"type": "header", "text": {"type": "plain_text", "text": "rejected"}}
    send(ALERT._replace(blocks=(block,)))
    (message,) = slack.received
    assert ALERT.title in message["text"]
    assert message["blocks"][0] == block
    (last,) = message["blocks"][-1]["elements"]
    for part in ("page", ALERT.owner, ALERT.runbook):
        assert part in last["text"]
    assert len(message["blocks"]) == 2
