"""Who is told of a budget: once when it is exceeded, once when it no longer is, and of each refusal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from airloop.cost.references import BudgetState, RecordedUsage
from airloop_airflow import cost


def _context(dag_id: str = "cost", hours_ago: float = 0.2):
    due = datetime.now(UTC) - timedelta(hours=hours_ago)
    return {
        "dag": SimpleNamespace(dag_id=dag_id, owner="somebody else"),
        "task": SimpleNamespace(owner="somebody else"),
        "dag_run": SimpleNamespace(run_id="scheduled__1", run_after=due),
    }


@pytest.fixture
def tell(monkeypatch):
    def told(exceeded: bool | None, **when: float) -> str:
        monkeypatch.setattr(cost, "get_current_context", lambda: _context(**when))
        states = [] if exceeded is None else [("flight_delay", exceeded)]
        budgets = tuple(BudgetState(use_case=n, exceeded=e, said="12.00 EUR spent") for n, e in states)
        recorded = RecordedUsage(attempts=1, price=1.0, currency="EUR", budgets=budgets)
        return cost.tell(recorded.model_dump(mode="json"))

    return told


def test_an_exceeded_budget_is_told_once_until_it_is_over(tell, slack):
    assert tell(False) == "flight_delay: 12.00 EUR spent"
    assert slack.received == []
    for _ in range(3):
        tell(True)
    tell(False)
    tell(True)
    assert tell(None) == "no budgets"
    said = [message["text"] for message in slack.received]
    assert ["over its budget" in text for text in said] == [True, False, True, False]
    assert "flight_delay: within its budget again" in said[1]
    assert "12.00 EUR spent" in said[0]
    assert "docs/runbooks/budget.md" in said[0]
    assert "it has no budget any more" in said[3]
    assert "owner ml-platform" in said[0], "the use case's, not the platform's"


def test_an_old_run_that_is_cleared_wakes_nobody(tell, slack):
    assert tell(True, hours_ago=30) == "history, nobody is told"
    assert slack.received == []


@pytest.mark.parametrize("exceeded", [True, False])
def test_a_training_over_the_budget_is_told_before_it_begins(slack, monkeypatch, exceeded):
    monkeypatch.setattr(cost, "get_current_context", lambda: _context("flight_delay_training"))
    state = BudgetState(use_case="flight_delay", exceeded=exceeded, said="0.80 EUR spent, at most 1.00")
    assert cost.tell_before(state.model_dump()) == "0.80 EUR spent, at most 1.00"
    assert ["over the budget" in message["text"] for message in slack.received] == [True] * exceeded


def test_what_failed_for_another_reason_is_a_failure(slack):
    instance = SimpleNamespace(dag_id="flight_delay_training", task_id="check_budget", run_id="manual__1")
    dag = SimpleNamespace(dag_id="flight_delay_training", owner="ml-platform")
    cost.alert_on_refusal(
        {"ti": instance, "dag": dag, "task": dag, "exception": "OperationalError: database is locked"}
    )
    (message,) = slack.received
    assert "flight_delay_training.check_budget failed" in message["text"]


def test_a_refused_training_says_why(slack):
    instance = SimpleNamespace(dag_id="flight_delay_training", task_id="check_budget", run_id="manual__1")
    dag = SimpleNamespace(dag_id="flight_delay_training", owner="ml-platform")
    cost.alert_on_refusal(
        {"ti": instance, "dag": dag, "exception": "BudgetError: 0.80 EUR spent; at most 1.00"}
    )
    (message,) = slack.received
    assert "flight_delay: a training is refused" in message["text"]
    assert "0.80 EUR spent" in message["text"]
