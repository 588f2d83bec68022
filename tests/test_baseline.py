"""The base-rate baseline."""

from __future__ import annotations

import numpy as np
import pytest

from airloop import baseline


def test_a_group_has_its_own_rate_pulled_towards_the_overall_one() -> None:
    columns = {"colour": np.array(["red"] * 80 + ["blue"] * 20, object)}
    labels = np.array([1] * 40 + [0] * 60)
    rates = baseline.fit(["colour"], columns, labels)
    red, blue = rates.predict({"colour": np.array(["red", "blue"], object)})
    assert red == pytest.approx((40 + 20 * 0.4) / 100)
    assert blue == pytest.approx((0 + 20 * 0.4) / 40)


def test_an_unknown_group_has_the_overall_rate() -> None:
    rates = baseline.fit(["colour"], {"colour": np.array(["red"] * 4, object)}, np.array([1, 0, 0, 0]))
    assert rates.predict({"colour": np.array(["green"], object)}).tolist() == [0.25]


def test_groups_are_formed_by_all_columns_and_by_the_hour_of_a_local_time() -> None:
    columns = {
        "colour": np.array(["red", "red", "blue"] * 100, object),
        "due_local": np.array([3600, 86400 + 5400, 3600] * 100),
    }
    labels = np.array([1, 1, 0] * 100)
    rates = baseline.fit(["colour", "due_local_hour"], columns, labels)
    assert len(rates.groups) == 2  # 01:00 and 01:30 of another day are one hour
    red, blue = rates.predict(
        {"colour": np.array(["red", "blue"], object), "due_local": np.array([7000, 7000])}
    )
    assert red > 0.9
    assert blue < 0.2


def test_no_rows_make_no_baseline() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        baseline.fit(["colour"], {"colour": np.array([], object)}, np.array([]))
