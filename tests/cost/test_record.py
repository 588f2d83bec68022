"""From the files that tasks leave to the priced table, once each; and what of a budget is left."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airloop.cost import record as module
from airloop.cost.attempts import write_attempt
from airloop.cost.check_budget import check
from airloop.cost.record import record
from airloop.cost.usage_table import priced, used_in
from airloop.errors import BudgetError, SettingsError
from airloop.intervals import Interval
from airloop.lakehouse.catalog import open_catalog
from airloop.settings import Settings
from airloop.use_cases.budget_policy import Budget
from airloop.use_cases.flight_delay import USE_CASE
from tests.cost.conftest import NOW

TRAINING = 2 * 0.2
"""An hour of it."""


def _table(settings: Settings):
    return used_in(open_catalog(settings), Interval(NOW - timedelta(days=30), NOW))


def test_what_is_over_is_recorded_with_its_price_and_what_runs_stays(settings, attempt) -> None:
    write_attempt(settings, attempt(hours_ago=2, cpu_seconds=1800))
    write_attempt(settings, attempt(hours_ago=1, ended=False, task_id="killed"))
    write_attempt(settings, attempt(seconds=60, ended=False, task_id="running"))
    write_attempt(settings, attempt(use_case=None, dag_id="maintenance", module="spark_jobs.maintenance"))
    (settings.usage_dir / "notes.json").write_text("{}")
    done = record(settings, NOW)
    assert done.attempts == 3
    assert done.price == pytest.approx(2 * TRAINING + 0.1)
    assert done.unreadable == ("notes.json",)
    assert [path.name for path in settings.usage_dir.glob("n*.json")] == ["notes.json"]
    found = {used.attempt.task_id + str(used.attempt.use_case): used for used in _table(settings)}
    assert sorted(found) == ["killedflight_delay", "trainNone", "trainflight_delay"]
    used = found["trainflight_delay"]
    assert used.attempt == attempt(hours_ago=2, cpu_seconds=1800)
    assert (used.machine, used.machines, used.market, used.currency) == ("large", 2, "spot", "EUR")
    # What ran is recorded when it is over, in its own place.
    write_attempt(settings, attempt(seconds=60, task_id="running"))
    assert record(settings, NOW).attempts == 1
    assert len(_table(settings)) == 4


def test_killed_before_the_files_are_removed_it_records_the_same_again(
    settings, attempt, monkeypatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    write_attempt(settings, attempt())
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            record(settings, NOW)
    assert len(_table(settings)) == 1
    record(settings, NOW)
    assert len(_table(settings)) == 1
    assert list(settings.usage_dir.iterdir()) == []


def test_without_prices_use_is_recorded_and_has_none(settings, attempt) -> None:
    unpriced = settings.model_copy(update={"prices": None})
    write_attempt(unpriced, attempt())
    done = record(unpriced, NOW)
    assert (done.attempts, done.price, done.currency) == (1, None, None)
    assert _table(unpriced)[0].price is None


@pytest.fixture
def spec(monkeypatch):
    made = USE_CASE.model_copy(update={"budget": Budget(per_week=1.0)})
    monkeypatch.setattr(module, "all_use_cases", lambda: (made,))
    return made


def test_a_week_above_the_budget_is_exceeded_until_it_is_past(settings, attempt, spec) -> None:
    for hours in (10, 20, 30):
        write_attempt(settings, attempt(hours_ago=hours))
    (state,) = record(settings, NOW).budgets
    assert state.exceeded
    assert "1.20 EUR spent within a week, at most 1.00" in state.said
    (state,) = record(settings, NOW + timedelta(days=6, hours=4)).budgets
    assert not state.exceeded


def test_a_budget_without_prices_is_an_error(settings, spec) -> None:
    unpriced = settings.model_copy(update={"prices": None})
    for ask in (lambda: record(unpriced, NOW), lambda: check(unpriced, spec, NOW)):
        with pytest.raises(SettingsError, match="a price table"):
            ask()


def test_a_training_that_would_spend_too_much_is_refused_before_it_starts(settings, attempt, spec) -> None:
    assert not check(settings, spec, NOW).exceeded, "the first one is how one learns what it costs"
    write_attempt(settings, attempt(hours_ago=50, run_id="first"))
    record(settings, NOW)
    # Not recorded yet, and spent all the same.
    write_attempt(settings, attempt(hours_ago=1, run_id="second"))
    with pytest.raises(BudgetError, match=r"0\.80 EUR spent within a week.*a run costs about 0\.40"):
        check(settings, spec, NOW)
    assert check(settings, spec, NOW, whatever_it_costs=True).exceeded
    lenient = spec.model_copy(update={"budget": Budget(per_week=1.0, when_exceeded="alert")})
    assert check(settings, lenient, NOW).exceeded
    assert not check(settings, spec, NOW + timedelta(days=6)).exceeded


def test_only_a_run_that_trained_to_the_end_tells_what_one_costs(settings, attempt, spec) -> None:
    asks = {"seconds": 20, "task_id": "check_budget", "module": "airloop.cost.check_budget"}
    for number in range(6):
        write_attempt(settings, attempt(hours_ago=number, run_id=f"refused {number}", **asks))
    write_attempt(settings, attempt(hours_ago=30, run_id="died", ended=False))
    assert "what a run costs is not known" in check(settings, spec, NOW).said
    write_attempt(settings, attempt(hours_ago=40, run_id="whole", **asks))
    write_attempt(settings, attempt(hours_ago=39, run_id="whole"))
    assert "a run costs about 0.40" in check(settings, spec, NOW, whatever_it_costs=True).said


def test_a_job_that_the_table_does_not_price_has_no_price(prices, attempt) -> None:
    only_training = prices.model_copy(update={"jobs": prices.jobs[1:]})
    assert priced(attempt(module="spark_jobs.features"), only_training).price is None
