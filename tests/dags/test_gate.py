"""A rejected candidate ends the run, and on-call reads the verdict in Slack."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from airloop_airflow import gate
from tests.test_verdict import champion, verdict_on

REJECTED = {
    "run_id": "r1",
    "accepted": False,
    "verdict_uri": "mlflow-artifacts:/1/v",
    "figures": {"test_roc_auc": 0.71},
    "failed": ["roc_auc: 0.71 is too low", "log_loss: high"],
}


REQUEST = {"asset": [SimpleNamespace(extra={"why": "drift of wind"})]}


@pytest.fixture
def _run(monkeypatch, tmp_path):
    monkeypatch.setenv("AIRLOOP_STATE_DIR", str(tmp_path))
    context = {
        "ti": SimpleNamespace(dag_id="some_training", run_id="manual__1"),
        "dag": SimpleNamespace(owner="ml-platform"),
        "task": SimpleNamespace(owner="ml-platform"),
    }
    monkeypatch.setattr(gate, "get_current_context", lambda: context)


@pytest.fixture
def page(tmp_path):
    folder = tmp_path / "reports" / "planted" / "as_of_20130112"
    folder.mkdir(parents=True)
    verdict = verdict_on(champion=champion(roc_auc=0.8))
    (folder / "verdict.json").write_text(verdict.model_dump_json())
    return folder / "verdict.html"


@pytest.mark.usefixtures("_run")
def test_an_accepted_candidate_goes_on_and_nobody_is_told(slack):
    assert gate.accepted({"accepted": True}) is True
    assert slack.received == []


@pytest.mark.usefixtures("_run")
def test_a_rejection_is_told_with_the_verdict(slack, page):
    assert gate.accepted({**REJECTED, "page_uri": page.as_uri()}) is False
    (message,) = slack.received
    text = json.dumps(message["blocks"])
    assert "planted: candidate rejected" in text
    assert "roc_auc_loss_to_champion" in text
    assert "docs/runbooks/candidate_rejected.md" in text
    (actions,) = (block for block in message["blocks"] if block["type"] == "actions")
    urls = [button["url"] for button in actions["elements"]]
    assert urls[0].endswith("/airloop-reports/planted/as_of_20130112/verdict.html")
    assert urls[1].endswith("/dags/some_training/runs/manual__1")


@pytest.mark.usefixtures("_run")
@pytest.mark.parametrize("damage", ["gone", "half", "no page"])
def test_without_a_readable_verdict_the_text_is_told(slack, page, damage):
    document = page.with_name("verdict.json")
    if damage == "gone":
        document.unlink()
    elif damage == "half":
        document.write_text(document.read_text()[:100])
    uri = {} if damage == "no page" else {"page_uri": page.as_uri()}
    assert gate.accepted({**REJECTED, **uri}) is False
    (message,) = slack.received
    assert "roc_auc_loss_to_champion" not in json.dumps(message["blocks"]), "it was read after all"
    assert "candidate rejected" in message["text"]
    assert "test_roc_auc 0.71" in message["text"]
    assert "roc_auc: 0.71 is too low; log_loss: high" in message["text"]


@pytest.mark.usefixtures("_run")
@pytest.mark.parametrize(
    ("events", "because"), [({}, "by hand or by the schedule"), (REQUEST, "drift of wind")]
)
def test_a_registered_candidate_is_told_with_why_it_was_trained(slack, monkeypatch, events, because):
    context = {
        "dag": SimpleNamespace(dag_id="some_training", owner="ml-platform"),
        "task": SimpleNamespace(owner="ml-platform"),
        "dag_run": SimpleNamespace(run_id="manual__1"),
        "triggering_asset_events": events,
    }
    monkeypatch.setattr(gate, "get_current_context", lambda: context)
    gate.tell_registered({"name": "some", "version": 4}, {**REJECTED, "accepted": True})
    (message,) = slack.received
    for part in ("some: version 4 is a candidate", because, "test_roc_auc 0.71", "retraining.md", "notice"):
        assert part in message["text"]


@pytest.mark.usefixtures("_run", "slack")
@pytest.mark.parametrize("said", [None, "true", 1, False])
def test_only_an_explicit_true_opens_the_gate(said):
    assert gate.accepted({"accepted": said}) is False
