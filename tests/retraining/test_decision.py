"""What leads to a training, and what speaks against it, in which order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airloop.monitoring.silences import Silence
from airloop.retraining.causes import Cause
from airloop.retraining.decision import Decision, Past, Refusal, Training, decide, losers
from airloop.use_cases.retraining_policy import DECAY, DRIFT, Retraining

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
POLICY = Retraining(cool_down=timedelta(days=2), trainings_per_week=3, most_losers=3)
DRIFTED = Cause(DRIFT, "drift of wind")
SILENCE = Silence(DRIFT, NOW + timedelta(days=1), "a known storm", "Ada")


def trained(outcome: str, days_ago: float, price: float | None = None) -> Training:
    return Training(NOW - timedelta(days=days_ago), outcome, price)  # type: ignore[arg-type]  # one of four


def decided(
    *trainings: Training,
    causes: tuple[Cause, ...] = (DRIFTED,),
    last_request: datetime | None = None,
    policy: Retraining = POLICY,
) -> Decision:
    return decide(policy, NOW, causes, Past(last_request, trainings))


def test_a_cause_with_nothing_against_it_is_a_request_that_says_why():
    found = decided(trained("won", 30), causes=(DRIFTED, Cause(DECAY, "version 3 decays")))
    assert (found.requested, found.refusal, found.said) == (True, None, "drift of wind; version 3 decays")


def test_without_a_cause_there_is_nothing_to_refuse():
    found = decided(causes=())
    assert (found.requested, found.refusal, found.said) == (False, None, "no cause")


def test_a_silenced_cause_is_no_reason_and_says_whose_silence_it_is():
    found = decided(causes=(DRIFTED._replace(silence=SILENCE),))
    assert (found.requested, found.refusal) == (False, Refusal.SILENCED)
    assert found.said == "drift of wind: silenced until 2026-11-21 12:00 UTC by Ada: a known storm"


def test_one_cause_that_is_heard_is_enough():
    found = decided(causes=(DRIFTED._replace(silence=SILENCE), Cause(DECAY, "version 3 decays")))
    assert (found.requested, [cause.name for cause in found.causes]) == (True, [DECAY])


@pytest.mark.parametrize("days", [1.9, 0.0])
def test_a_request_or_a_training_is_left_to_work_for_the_cool_down(days):
    when = NOW - timedelta(days=days)
    for found in (decided(last_request=when), decided(trained("won", days))):
        assert found.refusal is Refusal.COOL_DOWN
        assert f"until {when + timedelta(days=2):%Y-%m-%d %H:%M} UTC" in found.said
    assert decided(trained("won", 2.0), last_request=NOW - timedelta(days=2)).requested


def test_each_candidate_in_a_row_that_did_not_win_doubles_the_cool_down():
    once, twice = [trained("lost", 3.9)], [trained("lost", 9), trained("lost", 7.9)]
    found = decided(trained("won", 40), *once)
    assert found.refusal is Refusal.COOL_DOWN
    assert "for 4 days after 1 that did not become the champion" in found.said
    assert decided(trained("won", 40), trained("lost", 4.0)).requested
    assert decided(*twice).refusal is Refusal.COOL_DOWN
    assert decided(trained("lost", 9), trained("lost", 8.0)).requested
    assert decided(*twice, trained("won", 2.0)).requested, "a winner begins anew"


def test_the_weeks_trainings_are_a_budget_whoever_started_them():
    three = [trained("won", days) for days in (6.9, 5, 3)]
    found = decided(*three)
    assert found.refusal is Refusal.BUDGET
    assert "3 trainings within a week (at most 3), the oldest of 2026-11-13" in found.said
    assert decided(*(one._replace(started=one.started - timedelta(days=0.2)) for one in three)).requested


def test_a_candidate_that_is_not_decided_is_waited_for():
    assert decided(trained("won", 9), trained("open", 3)).refusal is Refusal.UNDER_WAY
    assert decided(trained("open", 9), trained("won", 3)).requested, "a later one was decided"
    died = decided(trained("open", 6), trained("failed", 3))
    assert died.refusal is Refusal.UNDER_WAY, "a training that died decides nothing"


def test_candidates_that_do_not_win_stop_requests_until_one_does():
    lost = [trained("lost", days) for days in (30, 20, 10)]
    found = decided(trained("won", 40), *lost)
    assert found.refusal is Refusal.STOPPED
    assert "the last 3 candidates did not become the champion (at most 3 in a row)" in found.said
    assert decided(*lost, trained("won", 5)).requested
    assert decided(*lost[:2]).requested


def test_a_training_that_failed_says_nothing_about_candidates():
    assert losers([trained("lost", 9), trained("failed", 8), trained("lost", 7)]) == 2
    assert losers([trained("lost", 9), trained("won", 8), trained("failed", 7), trained("open", 6)]) == 0


def test_what_only_a_person_can_change_is_said_before_what_passes():
    lost = [trained("lost", days) for days in (1.5, 1, 0.5)]
    assert decided(*lost).refusal is Refusal.STOPPED
    assert decided(*lost[:1], trained("won", 1.2), trained("won", 0.5)).refusal is Refusal.BUDGET


PRICED = Retraining(price_per_week=25.0, cool_down=timedelta(days=2))


def test_money_is_refused_before_it_is_spent():
    dear = [trained("won", 20, 10.0), trained("won", 6, 11.0), trained("won", 4, 9.0)]
    found = decided(*dear, policy=PRICED)
    assert found.refusal is Refusal.BUDGET
    assert "20.00 spent within a week, another training costs about 10.00 (at most 25 a week)" in found.said
    assert decided(*dear[:2], policy=PRICED).requested


def test_a_training_without_a_price_counts_as_a_usual_one():
    found = decided(trained("won", 20, 10.0), trained("won", 6), trained("won", 4), policy=PRICED)
    assert "20.00 spent within a week" in found.said


def test_a_budget_in_money_without_any_price_refuses_and_says_what_to_set():
    found = decided(trained("won", 20), policy=PRICED)
    assert found.refusal is Refusal.BUDGET
    assert "set AIRLOOP_PRICES" in found.said
    assert decided(policy=PRICED).requested, "nothing was trained yet"
