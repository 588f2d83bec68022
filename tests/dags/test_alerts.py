"""Alerts, through the real Slack clients, to a server on loopback in Slack's place."""

from __future__ import annotations

import json
import logging
import pickle
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from slack_sdk.models.blocks import Block

from airloop_airflow import incidents
from airloop_airflow.alert_kinds import ALERT_KINDS, DRIFT, TASK_FAILED, catalogue
from airloop_airflow.alerts import Alert, alert_on_failure, send
from airloop_airflow.failures import PermanentFailure
from tests.dags.conftest import REPOSITORY

ALERT = Alert(
    kind=TASK_FAILED,
    title="some_features.audit failed",
    owner="ml-platform",
    dag_id="some_features",
    run_id="manual__1",
    detail="AuditError: expected 36 expectations to hold; found 1 that does not",
    subject="some_features.audit",
    phase="began",
)
DRIFTED = Alert(
    kind=DRIFT,
    title="some: drift of wind",
    owner="ml-platform",
    dag_id="some_monitoring",
    run_id="scheduled__1",
    detail="wind: distance 0.31",
    subject="some",
    phase="began",
)


def test_an_alert_reaches_slack_with_severity_owner_run_and_runbook(slack):
    send(ALERT)
    (message,) = slack.received
    for part in (
        "page",
        "ml-platform",
        ALERT.title,
        ALERT.detail,
        "docs/runbooks/features_failed.md",
        "/dags/some_features/runs/",
    ):
        assert part in message["text"]


def test_a_failed_task_alerts_with_its_exception(slack):
    context = {
        "ti": SimpleNamespace(dag_id="some_features", run_id="manual__1", task_id="audit"),
        "dag": SimpleNamespace(dag_id="some_features", owner="ml-platform"),
        "task": SimpleNamespace(owner="ml-platform"),
        "exception": RuntimeError("the feed is stale"),
    }
    alert_on_failure(context)
    (message,) = slack.received
    assert "some_features.audit failed" in message["text"]
    assert "the feed is stale" in message["text"]
    assert "docs/runbooks/features_failed.md" in message["text"]


AUDIT = {
    "type": "AuditError",
    "expected": "all 36 expectations on branch audit_1 to hold",
    "found": "2 that do not: flights: ExpectColumnValuesToNotBeNull of carrier, 3 rows | weather: few rows",
    "next_step": "mend the source",
}


def _failed(exception: Exception, dag_id: str = "some_features", task_id: str = "audit") -> dict[str, object]:
    return {
        "ti": SimpleNamespace(dag_id=dag_id, run_id="manual__1", task_id=task_id),
        "dag": SimpleNamespace(dag_id=dag_id, owner="ml-platform"),
        "task": SimpleNamespace(owner="ml-platform"),
        "exception": exception,
    }


def test_a_failed_audit_is_an_alert_of_its_own_that_names_the_expectations(slack, monkeypatch, tmp_path):
    monkeypatch.setenv("AIRLOOP_STATE_DIR", str(tmp_path))
    report = tmp_path / "reports" / "some" / "data_docs" / "1" / "index.html"
    failure = PermanentFailure({**AUDIT, "report_uri": report.as_uri()})
    alert_on_failure(_failed(pickle.loads(pickle.dumps(failure))))
    (message,) = slack.received
    assert "some_features.audit failed* (page" in message["text"]
    lines = message["text"].splitlines()
    assert "2 that do not: flights: ExpectColumnValuesToNotBeNull of carrier, 3 rows" in lines
    assert "weather: few rows" in lines
    assert "Report: http://127.0.0.1:8080/airloop-reports/some/data_docs/1/index.html" in lines
    assert "`audit_failed`" in json.dumps(message["blocks"])


def test_a_job_that_breaks_otherwise_in_the_audit_is_a_failed_task(slack):
    alert_on_failure(_failed(PermanentFailure({**AUDIT, "type": "HistoryError"})))
    (message,) = slack.received
    assert "`task_failed`" in json.dumps(message["blocks"])
    assert "Next: mend the source" in message["text"]


def test_a_drill_that_failed_is_an_alert_of_its_own(slack):
    failure = PermanentFailure({**AUDIT, "type": "RegistryError"})
    alert_on_failure(_failed(failure, "some_drill", "drill"))
    (message,) = slack.received
    assert "`drill_failed`, runbook docs/runbooks/drill_failed.md" in json.dumps(message["blocks"])


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


def test_an_alert_is_sent_though_nobody_can_tell_what_is_going_on(slack, caplog, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no server")

    monkeypatch.setattr(incidents.Variable, "get", broken)
    monkeypatch.setattr(incidents.Variable, "set", broken)
    send(ALERT)
    (message,) = slack.received
    assert ALERT.title in message["text"]


def test_blocks_of_its_own_stand_in_the_details_place(slack):
    block = {"type": "header", "text": {"type": "plain_text", "text": "rejected"}}
    send(ALERT._replace(blocks=(block,)))
    (message,) = slack.received
    assert message["blocks"][0] == block
    assert "docs/runbooks/features_failed.md" in json.dumps(message["blocks"])
    assert ALERT.detail not in json.dumps(message["blocks"])


@pytest.mark.parametrize("kind", ALERT_KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("phase", ["event", "began", "over"])
def test_every_kind_of_alert_is_what_slack_takes(slack_api, kind, phase):
    detail = "<!channel> & 5 < 6\n" + "x" * 5000
    title = f"some: {'long ' * 60}"
    alert = ALERT._replace(
        kind=kind, phase=phase, title=title, detail=detail, dag_id="flight_delay_monitoring"
    )
    send(alert)
    ((method, message),) = slack_api.received
    assert (method, message["channel"]) == ("chat.postMessage", "#oncall")
    blocks = Block.parse_all(message["blocks"])
    assert len(blocks) == len(message["blocks"])
    for block in blocks:
        block.validate_json()
    shown = json.dumps(message["blocks"])
    assert "<!channel>" not in shown
    assert "<!channel>" not in message["text"]
    severity = "notice" if phase == "over" else kind.severity
    for part in (severity, "flight_delay", "<!subteam^S1>", kind.name, alert.runbook):
        assert part in shown
    assert (REPOSITORY / alert.runbook).exists()


def test_the_catalogue_in_the_documentation_is_the_codes():
    written = (REPOSITORY / "docs" / "alerts.md").read_text()
    assert written == catalogue(), (
        "write it again: PYTHONPATH=src:plugins python -m airloop_airflow.alert_kinds"
    )


def test_no_alert_is_of_a_kind_that_the_catalogue_has_not():
    made = {
        kind
        for kind in vars(__import__("airloop_airflow.alert_kinds", fromlist=["*"])).values()
        if isinstance(kind, type(TASK_FAILED))
    }
    assert made == set(ALERT_KINDS)
    assert len({kind.name for kind in ALERT_KINDS}) == len(ALERT_KINDS)


def test_what_follows_goes_to_the_incidents_thread_and_its_first_message_says_how_it_stands(
    slack_api, later, variables
):
    send(DRIFTED)
    later(hours=5)
    send(DRIFTED._replace(title="some: drift of rain"))
    later(days=2)
    send(DRIFTED._replace(title="some: drift is over", phase="over"))
    later(days=1)
    send(DRIFTED)
    methods = [
        (method, message.get("thread_ts"), message.get("ts")) for method, message in slack_api.received
    ]
    first = "1.000001"
    assert methods == [
        ("chat.postMessage", None, None),
        ("chat.postMessage", first, None),
        ("chat.update", None, first),
        ("chat.postMessage", first, None),
        ("chat.update", None, first),
        ("chat.postMessage", None, None),
    ]
    # A new alarm is seen by who does not look into the thread.
    assert [message["reply_broadcast"] for _, message in slack_api.received if "thread_ts" in message] == [
        True,
        True,
    ]
    stands = slack_api.received[2][1]
    assert "drift of rain" in stands["text"]
    assert "2026-11-20 12:00 UTC, 2 times" in json.dumps(stands["blocks"])
    over = slack_api.received[4][1]
    assert over["text"].startswith(":white_check_mark:")
    assert {json.loads(value)["message"] for value in variables.values()} == {"1.000002"}


def test_many_failures_of_a_task_are_one_message_for_a_while(slack_api, later, caplog):
    send(ALERT)
    with caplog.at_level(logging.WARNING, logger="airloop_airflow.alerts"):
        for _ in range(20):
            later(seconds=2)
            send(ALERT)
    assert len(slack_api.received) == 1
    assert "told 0:00:40 ago, so it stays here" in caplog.text
    later(minutes=10)
    send(ALERT)
    assert [method for method, _ in slack_api.received[1:]] == ["chat.postMessage", "chat.update"]
    assert "22 times" in json.dumps(slack_api.received[-1][1]["blocks"])


def test_a_failure_of_the_next_day_is_another_incident(slack_api, later):
    send(ALERT)
    later(hours=25)
    send(ALERT)
    assert [message.get("thread_ts") for _, message in slack_api.received] == [None, None]


def test_other_tasks_fail_in_threads_of_their_own(slack_api, later):
    send(ALERT)
    send(ALERT._replace(subject="some_features.clean"))
    assert [message.get("thread_ts") for _, message in slack_api.received] == [None, None]


def test_a_webhook_tells_each_change_and_no_repetition(slack, later):
    send(ALERT)
    later(seconds=2)
    send(ALERT)
    assert len(slack.received) == 1
    send(DRIFTED)
    send(DRIFTED._replace(phase="over", title="some: drift is over"))
    assert [message["text"].split("*")[1] for message in slack.received[1:]] == [
        "some: drift of wind",
        "some: drift is over",
    ]


def test_what_airflow_knows_as_a_secret_is_masked(slack_api):
    from airflow.sdk._shared.secrets_masker import _secrets_masker
    from airflow.sdk.log import mask_secret

    masker = _secrets_masker()
    before = masker.replacer, set(masker.patterns)
    try:
        mask_secret("s3cr3t-t0ken-of-the-source")
        send(ALERT._replace(detail="401 for s3cr3t-t0ken-of-the-source"))
    finally:
        masker.replacer, masker.patterns = before
    ((_, message),) = slack_api.received
    assert "s3cr3t" not in json.dumps(message)
    assert "401 for ***" in message["text"]


def test_when_slack_has_no_time_the_alert_waits_and_is_sent(slack_api):
    slack_api.busy = 1
    send(ALERT)
    assert len(slack_api.received) == 1


def test_an_incident_that_a_webhook_began_gets_a_thread_where_there_is_one(slack_api, later, variables):
    incidents.remember(
        DRIFTED.incident, incidents.Incident("", "", *[datetime(2026, 11, 20, tzinfo=UTC)] * 3)
    )
    send(DRIFTED)
    ((method, message),) = slack_api.received
    assert (method, message["channel"], message.get("thread_ts")) == ("chat.postMessage", "#oncall", None)
    assert "2026-11-20 00:00 UTC, 2 times" in json.dumps(message["blocks"])
    assert {json.loads(value)["message"] for value in variables.values()} == {"1.000001"}


def test_an_alert_whose_thread_is_gone_is_told_anew(slack_api, later):
    send(DRIFTED)
    slack_api.gone = True
    later(hours=1)
    send(DRIFTED)
    assert [message.get("thread_ts") for _, message in slack_api.received] == [None, "1.000001", None]
    slack_api.gone = False
    send(DRIFTED._replace(phase="over"))
    assert slack_api.received[-2][1]["thread_ts"] == "1.000002"


def test_nobody_is_woken_because_something_is_over(slack):
    send(ALERT._replace(phase="over"))
    assert "(notice, owner ml-platform)" in slack.received[0]["text"]
