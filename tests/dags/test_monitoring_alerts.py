"""What is told of a judged window: what began, what is over, and nothing in between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from airloop.references import JudgedQuality, JudgedSkew, JudgedWindows
from airloop_airflow import monitoring

END = datetime(2026, 11, 20, 12, tzinfo=UTC)
QUIET = {
    "version": 3,
    "last_end": END.isoformat(),
    "alarmed": [],
    "heard": [],
    "began": [],
    "cleared": [],
    "lost_traffic_began": False,
    "lost_traffic_cleared": False,
    "silenced": [],
    "lines": ["until 2026-11-20 12:00 UTC: 900 answers", "wind: distance 0.31"],
}


QUALITY = {
    "version": 3,
    "waiting": 2,
    "last_day": "2026-11-18",
    "answers": 1000,
    "labelled": 950,
    "said": "ROC AUC 0.6100 (on its test days 0.7400), log loss 0.4100, p 0.0001",
    "alarmed": False,
    "began": False,
    "cleared": False,
    "has_test_days": True,
    "silenced": None,
}


@pytest.fixture
def tell(monkeypatch):
    def told(due=END + timedelta(minutes=20), of="tell", **judged):
        context = {
            "dag": SimpleNamespace(dag_id="flight_delay_monitoring", owner="ml-platform"),
            "task": SimpleNamespace(owner="ml-platform"),
            "dag_run": SimpleNamespace(run_id="scheduled__1", run_after=due),
        }
        monkeypatch.setattr(monitoring, "get_current_context", lambda: context)
        return getattr(monitoring, of)((QUIET if of == "tell" else QUALITY) | judged)

    return told


def test_drift_that_begins_is_told_with_its_numbers(tell, slack):
    assert tell(alarmed=["wind"], began=["wind"]) == "drift of wind"
    (message,) = slack.received
    for part in (
        "notice",
        "flight_delay: drift of wind",
        "version 3",
        "distance 0.31",
        "docs/runbooks/drift.md",
    ):
        assert part in message["text"]


def test_drift_that_goes_on_is_not_told_again_and_its_end_is(tell, slack):
    assert tell(alarmed=["wind"]) == "nothing new"
    assert slack.received == []
    assert (
        tell(alarmed=["dew_point", "rain"], heard=["dew_point"], cleared=["wind"])
        == "drift is over: wind; still dew_point"
    )
    assert len(slack.received) == 1
    assert (
        tell(alarmed=["a"], heard=["a"], began=["a"], cleared=["b"])
        == "drift of a; drift is over: b; still a"
    )
    assert len(slack.received) == 3


def test_lost_traffic_is_a_page(tell, slack):
    assert tell(lost_traffic_began=True) == "traffic is lost"
    assert "(page" in slack.received[0]["text"]
    assert tell(lost_traffic_cleared=True) == "traffic is back"
    assert "(notice" in slack.received[1]["text"]


def test_history_and_windows_that_are_not_there_wake_nobody(tell, slack):
    assert "history" in tell(due=END + timedelta(days=1), began=["wind"], alarmed=["wind"])
    assert "no window" in tell(last_end=None)
    assert slack.received == []


def test_decay_is_told_once_with_what_is_usual(tell, slack):
    said = tell(of="tell_quality")
    assert "950 of 1,000" in said
    assert slack.received == []
    tell(of="tell_quality", began=True, alarmed=True)
    (message,) = slack.received
    for part in ("version 3 decays", "0.6100 (on its test days 0.7400)", "docs/runbooks/decay.md"):
        assert part in message["text"]
    assert "2 wait" in tell(of="tell_quality", last_day=None)
    tell(of="tell_quality", alarmed=True)
    tell(of="tell_quality", began=True, alarmed=True, due=END + timedelta(days=30))
    assert len(slack.received) == 1
    assert "were not kept" in tell(of="tell_quality", has_test_days=False)
    tell(of="tell_quality", cleared=True)
    assert "as good as on its test days again" in slack.received[1]["text"]


def test_decay_is_over_when_another_version_took_the_place_of_the_one_that_decayed(tell, slack):
    tell(of="tell_quality", began=True, alarmed=True)
    for _ in range(2):
        tell(of="tell_quality", version=4)
    assert len(slack.received) == 2
    assert "version 4 took the place of the one that decayed" in slack.received[1]["text"]


def test_what_is_told_is_what_the_jobs_say():
    """A field that a job does not have would be found by nobody but on-call."""
    assert set(QUIET) <= set(JudgedWindows.model_fields)
    assert set(QUALITY) <= set(JudgedQuality.model_fields)


SKEW = JudgedSkew(
    day="2026-11-20", rows=1000, skewed=("wind",), began=("wind",), lines=("wind: 50.0% of 1,000 unequal",)
).model_dump(mode="json")


def test_skew_is_told_when_it_begins_and_when_it_is_over(tell, slack):
    assert "served features are not those of training: wind" in tell(of="tell_skew", **SKEW)
    (message,) = slack.received
    assert "wind: 50.0% of 1,000 unequal" in message["text"]
    assert "docs/runbooks/skew.md" in message["text"]
    tell(of="tell_skew", **{**SKEW, "began": [], "cleared": ["rain"]})
    assert "skew is over: rain" in slack.received[-1]["text"]


def test_a_day_of_the_past_that_is_compared_again_wakes_nobody(tell, slack):
    assert tell(of="tell_skew", due=END + timedelta(days=9), **SKEW) == "nothing new"
    assert slack.received == []
