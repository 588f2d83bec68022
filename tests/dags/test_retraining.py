"""A request to train says why, to Slack and to the training that it starts."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from airloop.references import RetrainingDecision
from airloop.retraining.decision import Refusal
from airloop_airflow import retraining

WHY = "drift of wind in the window until 2026-11-20 12:00 UTC"
REQUESTED = RetrainingDecision(version=3, requested=True, causes=("drift",), said=WHY)
QUIET = RetrainingDecision(version=3, said="no cause")


@pytest.fixture
def events(monkeypatch):
    made = {"asset": SimpleNamespace(extra=None)}
    context = {
        "dag": SimpleNamespace(dag_id="flight_delay_retraining", owner="ml-platform"),
        "task": SimpleNamespace(owner="ml-platform"),
        "dag_run": SimpleNamespace(run_id="asset__1"),
        "outlet_events": made,
    }
    monkeypatch.setattr(retraining, "get_current_context", lambda: context)
    return made


def _document(decision: RetrainingDecision) -> dict:
    return decision.model_dump(mode="json")


@pytest.mark.usefixtures("events")
def test_a_request_is_told_with_its_reason(slack):
    assert retraining.tell(_document(REQUESTED)) == WHY
    (message,) = slack.received
    assert "flight_delay: a training is requested (drift)" in message["text"]
    assert f"version 3 serves. {WHY}" in message["text"]
    assert "docs/runbooks/retraining.md" in message["text"]


@pytest.mark.usefixtures("events")
def test_what_a_person_has_to_see_to_is_told(slack):
    stopped = RetrainingDecision(version=3, refusal="stopped", said="3 lost", needs_a_person=True)
    retraining.tell(_document(stopped))
    (message,) = slack.received
    assert "no training is requested (stopped)" in message["text"]


@pytest.mark.usefixtures("events")
def test_a_budget_that_is_used_up_is_an_alert_of_its_own(slack):
    spent = RetrainingDecision(version=3, refusal="budget", said="3 trainings", needs_a_person=True)
    assert spent.refusal == Refusal.BUDGET
    retraining.tell(_document(spent))
    (message,) = slack.received
    assert "no training is requested (budget)" in message["text"]
    assert "`budget`, runbook docs/runbooks/budget.md" in json.dumps(message["blocks"])


@pytest.mark.usefixtures("events")
def test_nobody_hears_of_what_passes_by_itself(slack):
    for quiet in (QUIET, RetrainingDecision(version=3, refusal="cool-down", said=WHY)):
        retraining.tell(_document(quiet))
        assert not retraining.wanted(_document(quiet))
    assert slack.received == []


def test_the_training_that_a_request_starts_knows_why(events):
    assert retraining.wanted(_document(REQUESTED)) is True
    assert retraining.request("asset", WHY) == WHY
    event = SimpleNamespace(extra=events["asset"].extra)
    assert retraining.why({"asset": [event, event]}) == WHY
    assert retraining.why({"asset": [event, SimpleNamespace(extra={"why": "decay"})]}) == f"{WHY}; decay"


def test_a_training_that_nobody_requested_has_no_reason():
    assert retraining.why(None) == retraining.why({"asset": [SimpleNamespace(extra=None)]}) == ""
