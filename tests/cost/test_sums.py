"""What was spent by run, by day and for a thousand predictions; and which machines do not fit."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airloop.cost.advice import fits
from airloop.cost.sums import by_day, by_run, trend
from airloop.cost.usage_table import priced
from tests.cost.conftest import NOW

TODAY = NOW.date()


@pytest.fixture
def used(prices, attempt):
    return lambda *arguments, **fields: priced(attempt(*arguments, **fields), prices)


def test_a_run_costs_what_its_tasks_cost(used) -> None:
    found = [
        used(5, run_id="a"),
        used(4, run_id="a", try_number=2, cpu_seconds=60),
        used(1, run_id="b", module="spark_jobs.features"),
    ]
    newest, oldest = by_run(found)
    assert (newest.run_id, newest.price) == ("b", pytest.approx(0.1))
    assert (oldest.run_id, oldest.price, oldest.cpu_seconds) == ("a", pytest.approx(0.8), 60)
    assert oldest.wall_seconds == 7200
    assert oldest.started == NOW - timedelta(hours=6)


def test_a_thousand_predictions_cost_the_day_with_its_serving(used) -> None:
    found = [used(48), used(1)]
    first, second, third = by_day(found, {TODAY: 5000, TODAY - timedelta(days=1): 0}, 0.3, TODAY)
    assert (first.tasks, first.predictions, first.per_thousand) == (pytest.approx(0.4), None, None)
    assert (second.tasks, second.serving) == (0.0, pytest.approx(7.2))
    assert (second.predictions, second.per_thousand) == (0, None)
    assert third.per_thousand == pytest.approx((0.4 + 7.2) / 5)
    assert by_day([], {}, 0.3, TODAY) == []


def test_the_trend_compares_four_weeks_with_the_four_before(used) -> None:
    days = 24.0
    found = [used(days * 40), used(days * 10), used(days * 3)]
    # Of the time before only 12 days are known: they cost 0.40.
    seen = trend(found, NOW)
    assert seen is not None
    assert seen.per_week == pytest.approx(0.8 / 4)
    assert seen.per_week_before == pytest.approx(0.4 * 7 / (12 + 1 / 24), rel=1e-3)
    young = trend(found[2:], NOW)
    assert young is not None
    assert (young.per_week, young.per_week_before, young.change) == (pytest.approx(0.4), None, None)
    assert trend([], NOW) is None


def test_a_machine_that_is_too_large_or_too_small_or_idle_is_said(used, prices) -> None:
    def suggested(**fields: float | str) -> str | None:
        (fit,) = fits([used(**{"seconds": 100.0, "module": "spark_jobs.features", **fields})], prices)
        return fit.suggestion

    training = {"module": "airloop.training.train"}
    assert suggested(peak_memory_gib=2.0, peak_vcpus=1.9) is None
    assert "near its end; large would do" in str(suggested(peak_memory_gib=3.9, peak_vcpus=1.0))
    assert "small" not in str(suggested(**training, peak_memory_gib=3.5, peak_vcpus=1.0))
    tuning = {"module": "airloop.training.tune", "peak_memory_gib": 20.0, "peak_vcpus": 7.0}
    assert "busy for 10% of the time" in str(suggested(**tuning, accelerator_seconds=10.0))
    assert suggested(**tuning, accelerator_seconds=90.0) is None
    billed_elsewhere = {"peak_memory_gib": 0.0, "peak_vcpus": 0.0}
    assert suggested(**billed_elsewhere) is None, "nobody looked at how busy it was"
    idle_elsewhere = {"peak_memory_gib": 2.0, "peak_vcpus": 1.9, "accelerators": 1}
    assert suggested(**idle_elsewhere) is None, "the machine that is paid for has none"


def test_a_cheaper_machine_and_spot_are_suggested_with_what_they_save(used, prices) -> None:
    on_demand = prices.model_copy(update={"jobs": (prices.jobs[0].model_copy(update={"machine": "large"}),)})
    small = used(seconds=3600.0, cpu_seconds=3600.0, peak_memory_gib=3.0, peak_vcpus=1.5)
    large = used(seconds=3600.0, peak_memory_gib=20.0, peak_vcpus=6.0, task_id="large")
    (fit,) = fits([small], on_demand)
    assert (fit.cpu_share, fit.memory_share) == (pytest.approx(1 / 8), pytest.approx(3 / 32))
    assert "small would do, for 88% less" in str(fit.suggestion)
    (fit,) = fits([small, large], on_demand)
    assert "as spot it costs 75% less" in str(fit.suggestion)
    (fit,) = fits([small], None)
    assert (fit.machine, fit.suggestion, fit.peak_vcpus) == (None, None, 1.5)
