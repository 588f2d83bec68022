"""A stage of a rollout as a task: what each decision of its job means for the run, and who hears of it."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred

from airloop.references import WentBack
from airloop.use_cases.catalogue import all_use_cases
from airloop_airflow import rollout
from airloop_airflow.rollout import (
    CandidateRolledBack,
    StageOperator,
    page_unless_rolled_back,
    stage_task,
    stages_of,
)

CHECK = {
    "name": "error_rate",
    "value": 0.02,
    "champion": 0.0,
    "threshold": 0.001,
    "low": None,
    "high": None,
    "requests": 400,
    "outcome": "breached",
    "detail": "8 of 400",
}
CONTEXT = {
    "ti": SimpleNamespace(
        dag_id="flight_delay_rollout", run_id="r", task_id="canary_5", try_number=1, map_index=-1
    ),
    "dag": SimpleNamespace(dag_id="flight_delay_rollout", owner="ml-platform"),
    "task": SimpleNamespace(owner="ml-platform"),
}


def decided(decision: str, **more: object) -> dict[str, object]:
    return {
        "name": "flight_delay",
        "version": 4,
        "stage": "canary_5",
        "decision": decision,
        "reason": "8 of 400 requests without a usable answer",
        "champion": 3,
        "checks": [CHECK],
        "look_again_at": None,
        "since": "2026-11-20T12:00:00Z",
    } | more


@pytest.fixture
def stage(monkeypatch):
    """A stage whose job decides as the test says; keeps the flags of each look."""
    answers, looks = [], []
    operator = stage_task(all_use_cases()[0], "canary_5", {"version": 4})

    def run_job(self, context):
        looks.append(dict(self.flags))
        return answers.pop(0)

    monkeypatch.setattr(StageOperator, "run_job", run_job)
    return SimpleNamespace(operator=operator, answers=answers, looks=looks)


def test_a_hold_waits_without_a_worker_until_the_time_that_the_job_named(stage, slack):
    again = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)
    stage.answers.append(decided("hold", look_again_at=again.isoformat()))
    with pytest.raises(TaskDeferred) as deferred:
        stage.operator.execute(CONTEXT)
    assert isinstance(deferred.value.trigger, DateTimeTrigger)
    assert deferred.value.trigger.moment == again
    assert slack.received == []
    stage.answers.append(decided("go_on"))
    result = getattr(stage.operator, deferred.value.method_name)(CONTEXT, None, **deferred.value.kwargs)
    assert result["decision"] == "go_on"
    assert [flags["first"] for flags in stage.looks] == ["true", "false"]
    assert {flags["stage"] for flags in stage.looks} == {"canary_5"}
    (message,) = slack.received
    assert "version 4 passed in canary_5" in message["text"]
    assert "error_rate 0.02 (champion 0, allowed 0.001, on 400)" in message["text"]


def test_a_stage_that_could_not_begin_yet_begins_at_a_later_look(stage, slack):
    again = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)
    stage.answers.append(decided("hold", look_again_at=again.isoformat(), since=None))
    with pytest.raises(TaskDeferred) as deferred:
        stage.operator.execute(CONTEXT)
    stage.answers.append(decided("go_on"))
    stage.operator.look(CONTEXT, None, **deferred.value.kwargs)
    assert [flags["first"] for flags in stage.looks] == ["true", "true"]


def test_a_rollback_fails_without_another_try_and_wakes_nobody(stage, slack):
    stage.answers.append(decided("roll_back"))
    with pytest.raises(AirflowFailException, match="beside version 3: 8 of 400") as failed:
        stage.operator.execute(CONTEXT)
    assert isinstance(failed.value, CandidateRolledBack)
    (message,) = slack.received
    assert "(notice, owner ml-platform)" in message["text"]
    assert "rolled back in canary_5" in message["text"]
    page_unless_rolled_back({**CONTEXT, "exception": failed.value})
    assert len(slack.received) == 1
    page_unless_rolled_back({**CONTEXT, "exception": RuntimeError("the lakehouse is down")})
    assert "(page, owner ml-platform)" in slack.received[1]["text"]


def test_a_rollout_that_is_superseded_skips_what_follows(stage, slack):
    stage.answers.append(decided("superseded", reason="version 5 is newer"))
    with pytest.raises(AirflowSkipException, match="version 5 is newer"):
        stage.operator.execute(CONTEXT)
    assert "superseded in canary_5" in slack.received[0]["text"]


def test_the_stages_are_the_specs():
    for spec in all_use_cases():
        assert stages_of(spec) == ("shadow", *(f"canary_{n}" for n in spec.rollout.canary_percent))


@pytest.mark.parametrize(
    ("given_up", "title"),
    [(4, "version 3 has the traffic again after version 4"), (None, "version 3 has the traffic again*")],
)
def test_going_back_by_hand_is_told_with_who_and_why(slack, monkeypatch, given_up, title):
    context = {
        "dag": SimpleNamespace(dag_id="flight_delay_rollout", owner="ml-platform"),
        "task": SimpleNamespace(owner="ml-platform"),
        "dag_run": SimpleNamespace(run_id="manual__1", triggering_user_name="ada"),
    }
    monkeypatch.setattr(rollout, "get_current_context", lambda: context)
    went_back = WentBack(
        name="flight_delay", version=3, given_up=given_up, was_candidate=False, seconds=1.25, reason="wrong"
    )
    rollout.tell_rollback(went_back.model_dump(mode="json"))
    (message,) = slack.received
    for part in (title, "ada went back in 1.2 s: wrong", "candidate_rolled_back.md", "notice"):
        assert part in message["text"]
