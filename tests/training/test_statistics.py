"""Statistics of the train split."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from airloop.errors import HistoryError
from airloop.training.staging import Staged
from airloop.training.statistics import RARE_BELOW, compute, elapsed_hours
from tests.training.planted import planted_use_case

ROWS = 1000


def columns(**changes: Any) -> dict[str, np.ndarray]:
    base: dict[str, np.ndarray] = {
        "colour": np.array(["red"] * ROWS, object),
        "due_local": np.zeros(ROWS, np.int64),
        "due": np.full(ROWS, 7200),
        "heat": np.linspace(0, 99.9, ROWS, dtype=np.float32),
        "noise": np.zeros(ROWS, np.float32),
        "seen_at": np.full(ROWS, 3600),
    }
    return {**base, **changes}


def staged(columns: dict[str, np.ndarray], labels: np.ndarray) -> Staged:
    words, codes = np.unique(columns["colour"].astype(str), return_inverse=True)
    return Staged(
        columns={**columns, "colour": codes.astype(np.int32)},
        words={"colour": words.astype(object)},
        labels=labels.astype(np.int8),
        outcomes=None,
    )


LABELS = np.arange(ROWS) % 4 == 0


def test_missing_values_count_for_nothing() -> None:
    heat = np.array([np.nan, 10.0, 20.0, 30.0, np.inf] * (ROWS // 5), np.float32)
    number = compute(planted_use_case(), staged(columns(heat=heat), LABELS), bins=4).numbers["heat"]
    assert number.mean == pytest.approx(20)
    assert (number.low, number.high) == pytest.approx((10, 30))


def test_one_absurd_reading_moves_neither_range_nor_spread() -> None:
    heat = np.linspace(0, 100, ROWS, dtype=np.float32)
    usual = compute(planted_use_case(), staged(columns(heat=heat), LABELS), bins=4).numbers["heat"]
    heat = heat.copy()
    heat[500] = 1e6
    absurd = compute(planted_use_case(), staged(columns(heat=heat), LABELS), bins=4).numbers["heat"]
    assert absurd.high < 101
    assert absurd.deviation == pytest.approx(usual.deviation, rel=0.02)


def test_edges_are_strictly_increasing_even_where_most_values_are_one() -> None:
    heat = np.array([10.0] * 900 + list(np.linspace(0, 9, 100)), np.float32)
    edges = compute(planted_use_case(), staged(columns(heat=heat), LABELS), bins=8).numbers["heat"].edges
    assert (np.diff(edges) > 0).all()


@pytest.mark.parametrize("value", [np.nan, 5.0])
def test_a_number_that_never_varies_or_never_is_there_has_a_usable_scale(value: float) -> None:
    heat = np.full(ROWS, value, np.float32)
    number = compute(planted_use_case(), staged(columns(heat=heat), LABELS), bins=4).numbers["heat"]
    assert number.deviation == 1.0
    assert len(number.edges) == 2
    assert np.isfinite([number.low, number.high, number.mean, *number.edges]).all()


def test_rare_words_are_left_to_the_unknown_one() -> None:
    words = np.array(
        ["red"] * (ROWS - 2 * RARE_BELOW + 1) + ["blue"] * RARE_BELOW + ["teal"] * (RARE_BELOW - 1)
    )
    vocabulary = compute(
        planted_use_case(), staged(columns(colour=words.astype(object)), LABELS), bins=4
    ).vocabularies
    assert vocabulary == {"colour": ("red", "blue")}


def test_elapsed_time_is_in_hours_and_missing_where_either_instant_is() -> None:
    hours = elapsed_hours(np.array([3600, 0, 3600]), np.array([9000, 9000, 0]))
    assert hours[0] == 1.5
    assert np.isnan(hours[1:]).all()
    numbers = compute(planted_use_case(), staged(columns(), LABELS), bins=4).numbers
    assert numbers["idle_hours"].mean == 1.0


@pytest.mark.parametrize("labels", [np.zeros(ROWS), np.ones(ROWS), np.zeros(0)])
def test_one_class_alone_cannot_be_learnt(labels: np.ndarray) -> None:
    with pytest.raises(HistoryError, match="both classes"):
        compute(planted_use_case(), staged(columns(), labels), bins=4)


def test_outcome_rates_are_shares_above_each_threshold_and_never_certain() -> None:
    rows = replace(staged(columns(), LABELS), outcomes=np.linspace(-1, 3, ROWS, dtype=np.float32))
    facts = compute(planted_use_case(), rows, bins=4)
    assert facts.outcome_rates == pytest.approx(((ROWS + 1) / (ROWS + 2), 0.25), abs=2 / ROWS)
    assert facts.outcome_rates[0] < 1
    assert len(facts.every_prior) == 3
    assert facts.every_prior[0] == facts.priors[0]
    assert compute(planted_use_case(), staged(columns(), LABELS), bins=4).outcome_rates == ()
