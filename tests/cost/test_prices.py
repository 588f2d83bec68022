"""What a price table says, and what is wrong with one."""

from __future__ import annotations

import pytest

from airloop.cost.prices import PriceTable, load_prices
from airloop.cost.usage_table import priced
from airloop.errors import SettingsError
from airloop.settings import Settings


def test_the_longest_beginning_of_a_modules_name_says_what_it_runs_on(prices) -> None:
    assert prices.job_per_hour("spark_jobs.features") == 0.1
    assert prices.job_per_hour("airloop.training.train") == pytest.approx(2 * 0.2)
    assert prices.job_per_hour("airloop.training.tune_more") == 2.0
    assert prices.serving_per_hour("flight_delay") == pytest.approx(0.3)
    assert prices.serving_per_hour("other") is None


def test_what_is_billed_by_processors_costs_the_hours_of_one_worker(attempt) -> None:
    """EMR Serverless: 4 vCPUs and 16 GiB an hour each; 2 hours of 4 vCPUs, over whatever time and workers."""
    worker = {"vcpus": 4, "memory_gib": 16, "on_demand_per_hour": 0.3, "billed_by": "vcpu_hour"}
    job = {"machine": "worker", "modules": "spark_jobs", "count": 3}
    table = PriceTable(currency="EUR", machines={"worker": worker}, jobs=[job])
    used = attempt(module="spark_jobs.features").model_copy(update={"cpu_seconds": 8 * 3600.0})
    assert priced(used, table).price == pytest.approx(0.6)


def test_without_a_table_nothing_has_a_price(tmp_path) -> None:
    assert load_prices(Settings(state_dir=tmp_path)) is None


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (('machine = "small"', 'machine = "tiny"'), "there is no machine 'tiny'"),
        (('[[jobs]]\nmachine = "small"', '[[jobs]]\nmachine = "small"\nmarket = "spot"'), "no price as spot"),
        (("vcpus = 2", "vcpus = 0"), "machines.small.vcpus"),
        (("on_demand_per_hour = 0.1", "per_hour = 0.1"), "machines.small.per_hour"),
        (('accelerator = "L4"', ""), "go together"),
        (('currency = "EUR"', "currency = "), "Invalid value"),
    ],
)
def test_a_wrong_table_says_what_is_wrong(settings, change, found) -> None:
    path = settings.prices
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(SettingsError, match=found):
        load_prices(settings)


def test_a_table_that_is_not_there_is_an_error(tmp_path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_prices(Settings(state_dir=tmp_path, prices=tmp_path / "none.toml"))
