"""The test says "strange" as often as it claims, of days as unlike each other as days are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from airloop.monitoring.homogeneity import FEWEST_DAYS, compare

CELLS, DAYS, ROWS = 10, 120, 900


def days(random: np.random.Generator, base: np.ndarray, count: int, rows: int, unlike: float) -> np.ndarray:
    """Counts of days that differ: their shares are Dirichlet around `base`, the less alike the smaller
    `unlike`."""
    return np.array([random.multinomial(rows, random.dirichlet(base * unlike)) for _ in range(count)])


@pytest.mark.parametrize(("unlike", "rows"), [(1e9, ROWS), (200, ROWS), (20, ROWS), (200, 200)])
def test_without_drift_small_p_values_are_as_rare_as_they_say(unlike: float, rows: int) -> None:
    random = np.random.default_rng(0)
    base = random.dirichlet(np.full(CELLS, 3.0))
    reference = days(random, base, DAYS, ROWS, unlike)
    found = np.array([compare(day, reference).p_value for day in days(random, base, 1000, rows, unlike)])
    # Of 1,000: three standard deviations of chance, and what one reference is off by.
    assert np.mean(found <= 0.05) == pytest.approx(0.05, abs=0.035)
    assert np.mean(found <= 0.5) == pytest.approx(0.5, abs=0.12)


def test_where_days_differ_pearsons_own_test_would_alarm_every_day() -> None:
    random = np.random.default_rng(1)
    base = np.full(CELLS, 1 / CELLS)
    reference = days(random, base, DAYS, ROWS, 200)
    total = reference.sum(axis=0)
    naive = [
        stats.chisquare(day, total / total.sum() * ROWS).pvalue for day in days(random, base, 200, ROWS, 200)
    ]
    assert np.mean(np.array(naive) <= 0.05) > 0.8
    assert compare(reference[0], reference[1:]).design_effect == pytest.approx(1 + ROWS / 201, rel=0.3)


@pytest.mark.parametrize("moved", [0.1, 0.3])
def test_a_share_that_moves_is_found_and_measured(moved: float) -> None:
    random = np.random.default_rng(2)
    base = np.full(CELLS, 1 / CELLS)
    reference = days(random, base, DAYS, ROWS, 2000)
    shifted = base.copy()
    shifted[0] += moved
    shifted[1:] -= moved / (CELLS - 1)
    (day,) = days(random, shifted, 1, ROWS, 2000)
    found = compare(day, reference)
    assert found.p_value < 1e-6
    assert found.distance > 0.1
    assert found.rows == ROWS


def test_a_value_that_the_reference_never_had_is_found() -> None:
    reference = np.tile([450, 450, 0], (DAYS, 1))
    found = compare(np.array([400, 400, 100]), reference)
    assert found.p_value < 1e-6
    assert found.distance > 0.2
    assert compare(np.array([450, 450, 0]), reference).p_value > 0.5


def test_a_number_that_is_stuck_is_strange_where_storms_are_farther_off() -> None:
    random = np.random.default_rng(3)
    usual = np.array([0.4, *[0.07] * 8, 0.04])
    reference = days(random, usual, DAYS, ROWS, 200)
    reference[:3] = 0
    reference[:3, -1] = ROWS
    stuck = np.zeros(CELLS, int)
    stuck[0] = ROWS
    assert compare(stuck, reference).p_value == pytest.approx(1 / (DAYS + 1))
    storm = np.zeros(CELLS, int)
    storm[-1] = ROWS
    assert compare(storm, reference).p_value > 2 / (DAYS + 1)


def test_no_rows_are_not_strange_and_too_few_days_no_reference() -> None:
    reference = np.tile([450, 450], (DAYS, 1))
    assert compare(np.array([0, 0]), reference).p_value == 1
    empty = np.zeros((DAYS, 2), int)
    empty[: FEWEST_DAYS - 1] = 10
    with pytest.raises(ValueError, match="13 days with rows in the reference, 14 needed"):
        compare(np.array([5, 5]), empty)
