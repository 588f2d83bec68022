"""Size and latency of a real SavedModel."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from airloop.registry import SAVED_MODEL
from airloop.training import serving_cost as module
from airloop.training.evaluate import load_model
from airloop.training.examples import Columns, read_examples
from airloop.training.serving_cost import serving_cost
from tests.training.conftest import Trained


def test_a_saved_models_size_and_latency_are_measured(trained: Trained, tmp_path: Path) -> None:
    model = load_model(trained.settings, trained.spec, trained.candidate.run_id, tmp_path)
    test = read_examples(trained.settings, trained.spec, trained.training_set, "test")
    cost = serving_cost(model, tmp_path / SAVED_MODEL, test.columns)
    assert cost is not None
    size = sum(path.stat().st_size for path in (tmp_path / SAVED_MODEL).rglob("*") if path.is_file())
    assert cost.mebibytes == pytest.approx(size / 2**20)
    assert 0 < cost.single_row_p50_milliseconds <= cost.single_row_p99_milliseconds
    assert 0 < cost.batch_p50_milliseconds <= cost.batch_p99_milliseconds
    assert cost.batch_rows == 256


class Slow:
    """A model whose first calls take long, as a signature's do, and then one in ten of those with one row."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def predict(self, columns: Columns) -> np.ndarray:
        rows = len(columns["heat"])
        calls = self.rows.count(rows)
        self.rows.append(rows)
        if calls < 2 or (rows == 1 and calls % 10 == 0):
            time.sleep(0.02)
        return np.zeros(rows, np.float32)


def test_the_warm_up_does_not_count_and_slow_calls_do(tmp_path: Path) -> None:
    model = Slow()
    cost = serving_cost(model, tmp_path, {"heat": np.arange(30)})  # type: ignore[arg-type]
    assert cost is not None
    calls = module.WARM_UP + module.CALLS
    assert model.rows == [1] * calls + [30] * calls
    assert cost.single_row_p50_milliseconds < 20 <= cost.single_row_p99_milliseconds
    assert cost.batch_p50_milliseconds < 20
    assert cost.batch_rows == 30


def test_without_rows_nothing_is_measured(tmp_path: Path) -> None:
    assert serving_cost(Slow(), tmp_path, {"heat": np.zeros(0)}) is None  # type: ignore[arg-type]
