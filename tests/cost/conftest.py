"""Attempts of tasks as they are written down, and a price table."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airloop.cost.attempts import Attempt
from airloop.cost.prices import PriceTable, load_prices
from airloop.settings import Settings

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
PRICES = """
currency = "EUR"

[machines.small]
vcpus = 2
memory_gib = 4
on_demand_per_hour = 0.1

[machines.large]
vcpus = 8
memory_gib = 32
on_demand_per_hour = 0.8
spot_per_hour = 0.2

[machines.gpu]
vcpus = 8
memory_gib = 32
accelerator = "L4"
accelerators = 1
on_demand_per_hour = 2.0

[[jobs]]
machine = "small"

[[jobs]]
modules = "airloop.training"
machine = "large"
market = "spot"
count = 2

[[jobs]]
modules = "airloop.training.tune"
machine = "gpu"

[[serving]]
use_case = "flight_delay"
machine = "small"
count = 3
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    path = tmp_path / "prices.toml"
    path.write_text(PRICES)
    return Settings(state_dir=tmp_path / "state", prices=path)


@pytest.fixture
def prices(settings: Settings) -> PriceTable:
    found = load_prices(settings)
    assert found is not None
    return found


@pytest.fixture
def attempt() -> Callable[..., Attempt]:
    def make(hours_ago: float = 0.0, seconds: float = 3600.0, **fields: object) -> Attempt:
        """One that ended so many hours before `NOW`, after so many seconds."""
        end = NOW - timedelta(hours=hours_ago)
        given = {
            "use_case": "flight_delay",
            "dag_id": "flight_delay_training",
            "run_id": "manual",
            "task_id": "train",
            "map_index": -1,
            "try_number": 1,
            "module": "airloop.training.train",
            "started": end - timedelta(seconds=seconds),
            "measured": end,
            "ended": True,
        }
        return Attempt.model_validate(given | fields)

    return make
