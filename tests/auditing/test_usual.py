"""What is usual, and how far from it chance alone may carry: figures, without Spark."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2

from airloop.use_cases.spec import Expectation
from spark_jobs.auditing.expectations import CHANCE, OTHER, chance_stability, mean_of, stability
from spark_jobs.auditing.reference import MOST_BINS, SMALLEST_BIN, Reference, bins_of
from spark_jobs.auditing.suite import with_reference


def test_stability_is_the_sum_over_bins() -> None:
    now, before = {"a": 300, "b": 600, "c": 100}, {"a": 500, "b": 400, "c": 100}
    index, parts = stability(now, before)
    assert index == pytest.approx(-0.2 * math.log(0.3 / 0.5) + 0.2 * math.log(0.6 / 0.4))
    assert parts["c"] == pytest.approx((0.1, 0.1, 0))
    assert parts["a"][:2] == pytest.approx((0.5, 0.3))


def test_stability_of_the_same_shares_is_nought_at_any_size() -> None:
    assert stability({"a": 10, "b": 30}, {"a": 1000, "b": 3000})[0] == pytest.approx(0)


def test_stability_is_symmetric_and_never_negative() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        bins = int(random.integers(1, 12))
        one, other = (
            {str(n): int(rows) for n, rows in enumerate(random.integers(0, 50, bins))} for _ in range(2)
        )
        if sum(one.values()) and sum(other.values()):
            index = stability(one, other)[0]
            assert index == pytest.approx(stability(other, one)[0])
            assert index >= 0


def test_a_bin_that_one_side_lacks_is_a_finite_surprise() -> None:
    index, parts = stability({"a": 100}, {"a": 50, "b": 50})
    assert math.isfinite(index)
    assert max(parts, key=lambda name: parts[name][2]) == "b"
    few, many = {"a": 1}, {"a": 999_999, "b": 1}
    assert stability(few, many)[0] < chance_stability(few, many)


@pytest.mark.parametrize(("bins", "error"), [(2, 0.08), (3, 0.05), (6, 0.03), (21, 0.01)])
def test_what_chance_may_do_is_a_quantile_of_chi_squared(bins: int, error: float) -> None:
    now, before = dict.fromkeys(map(str, range(bins)), 40), dict.fromkeys(map(str, range(bins)), 900)
    exact = chi2.ppf(1 - CHANCE, bins - 1) * (1 / (40 * bins) + 1 / (900 * bins))
    assert chance_stability(now, before) == pytest.approx(exact, rel=error)


def test_chance_rarely_does_more_than_it_may() -> None:
    random = np.random.default_rng(1)
    shares = random.dirichlet(np.ones(8) * 5)
    alarms = 0
    for _ in range(5_000):
        now, before = (
            {str(n): int(rows) for n, rows in enumerate(random.multinomial(size, shares))}
            for size in (900, 25_000)
        )
        alarms += stability(now, before)[0] > chance_stability(now, before)
    # Half an alarm is to be expected, and ten would be all but impossible.
    assert alarms < 10


def test_bins_are_frequent_values_and_the_rest() -> None:
    values: Counter[object] = Counter({"often": 900, None: 90, "rare": 4, "rarer": 1})
    assert bins_of(values) == {"often": 900, "None": 90, OTHER: 5}


def test_bins_are_few_and_lose_no_row() -> None:
    values: Counter[object] = Counter({n: 100 + n for n in range(MOST_BINS * 3)})
    bins = bins_of(values)
    assert bins is not None
    assert len(bins) == MOST_BINS + 1
    assert sum(bins.values()) == values.total()
    assert min(rows for name, rows in bins.items() if name != OTHER) >= SMALLEST_BIN * values.total()
    assert str(MOST_BINS * 3 - 1) in bins
    assert "0" not in bins


def test_without_rows_there_are_no_bins() -> None:
    assert bins_of(Counter()) is None


def test_the_mean_is_of_the_rows_whose_value_is_known() -> None:
    assert mean_of({1.0: 3, 5.0: 1, None: 96}) == 2.0
    assert mean_of({None: 5}) is None
    assert mean_of({}) is None


def test_history_lends_its_figures_to_what_compares_with_it() -> None:
    reference = Reference(volume=10.0, values={"n": Counter({1: 30, 3: 10}), "m": Counter()})

    def lent(type: str, expression: str) -> object:
        item = Expectation(type=type, arguments={"expression": expression}, why="w")
        return with_reference(item, reference).arguments.get("reference", "untouched")

    assert lent("ExpectMeanToBeUsual", "n") == 1.5
    assert lent("ExpectDistributionToBeUsual", "n") == {"1": 30, "3": 10, OTHER: 0}
    assert lent("ExpectMeanToBeUsual", "m") is None
    assert lent("ExpectDistributionToBeUsual", "unheard of") is None
    assert lent("ExpectValuesToVary", "n") == "untouched"
