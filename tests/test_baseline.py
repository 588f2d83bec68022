"""The base-rate baseline."""

from __future__ import annotations

import numpy as np
import pytest

from airloop import baseline
from airloop.use_cases.target import Binary, Multiclass, Quantiles, Regression


def test_a_group_has_its_own_rate_pulled_towards_the_overall_one() -> None:
    columns = {"colour": np.array(["red"] * 80 + ["blue"] * 20, object)}
    labels = np.array([1] * 40 + [0] * 60)
    rates = baseline.fit(Binary(), ["colour"], columns, labels)
    red, blue = rates.predict({"colour": np.array(["red", "blue"], object)})
    assert red == pytest.approx((40 + 20 * 0.4) / 100)
    assert blue == pytest.approx((0 + 20 * 0.4) / 40)


def test_an_unknown_group_has_the_overall_rate() -> None:
    rates = baseline.fit(
        Binary(), ["colour"], {"colour": np.array(["red"] * 4, object)}, np.array([1, 0, 0, 0])
    )
    assert rates.predict({"colour": np.array(["green"], object)}).tolist() == [0.25]


def test_groups_are_formed_by_all_columns_and_by_the_hour_of_a_local_time() -> None:
    columns = {
        "colour": np.array(["red", "red", "blue"] * 100, object),
        "due_local": np.array([3600, 86400 + 5400, 3600] * 100),
    }
    labels = np.array([1, 1, 0] * 100)
    rates = baseline.fit(Binary(), ["colour", "due_local_hour"], columns, labels)
    assert len(rates.groups) == 2  # 01:00 and 01:30 of another day are one hour
    red, blue = rates.predict(
        {"colour": np.array(["red", "blue"], object), "due_local": np.array([7000, 7000])}
    )
    assert red > 0.9
    assert blue < 0.2


def test_no_rows_make_no_baseline() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        baseline.fit(Binary(), ["colour"], {"colour": np.array([], object)}, np.array([]))


RED = {"colour": np.array(["red"] * 80 + ["blue"] * 20, object)}
BOTH = {"colour": np.array(["red", "blue", "green"], object)}


def test_of_a_number_the_mean_is_usual() -> None:
    labels = np.array([10.0] * 80 + [20.0] * 20)
    red, blue, green = baseline.fit(Regression(unit="minutes"), ["colour"], RED, labels).predict(BOTH)
    assert red == pytest.approx((80 * 10 + 20 * 12) / 100)
    assert blue == pytest.approx((20 * 20 + 20 * 12) / 40)
    assert green == 12


def test_of_classes_their_rates_are_usual() -> None:
    target = Multiclass(classes=("a", "b", "c"))
    found = baseline.fit(target, ["colour"], RED, np.array([0] * 80 + [1] * 20)).predict(BOTH)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found[1], [20 * 0.8 / 40, (20 + 20 * 0.2) / 40, 0])


def test_of_quantiles_those_of_the_group_are_usual() -> None:
    labels = np.concatenate([np.linspace(0, 1, 80), np.linspace(10, 11, 20)])
    found = baseline.fit(Quantiles(unit="m", levels=(0.1, 0.9)), ["colour"], RED, labels).predict(BOTH)
    overall = np.quantile(labels, [0.1, 0.9])
    np.testing.assert_allclose(found[2], overall)
    np.testing.assert_allclose(found[1], (20 * np.array([10.1, 10.9]) + 20 * overall) / 40)
