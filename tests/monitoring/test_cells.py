"""Cells: every value falls into exactly one, and equal parts of the reference into each."""

from __future__ import annotations

import numpy as np
import pytest

from airloop.monitoring.cells import MISSING, OTHER, category_cells, number_cells


def test_cells_of_numbers_hold_equal_parts_and_missing_values_their_own() -> None:
    values = np.append(np.random.default_rng(0).normal(size=1000), [np.nan] * 50)
    cells = number_cells("wind", values)
    assert cells.count(values).tolist() == [100] * 10 + [50]
    assert cells.names[0] == f"<= {cells.edges[0]:g}"
    assert cells.names[-2:] == (f"> {cells.edges[-1]:g}", MISSING)


def test_what_no_reference_value_was_still_has_a_cell() -> None:
    cells = number_cells("wind", np.arange(100.0))
    assert cells.places(np.array([-np.inf, 1e9, np.inf, np.nan])).tolist() == [0, 9, 9, 10]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0] * 90 + [1.0] * 10, 2),
        ([0.0] * 100, 2),
        ([], 1),
        ([np.nan] * 5, 1),
    ],
)
def test_a_value_that_is_frequent_has_one_cell(values: list[float], expected: int) -> None:
    cells = number_cells("flag", np.array(values))
    assert len(cells.names) == expected + 1
    assert cells.count(np.array(values)).sum() == len(values)


def test_a_flag_is_told_from_its_opposite() -> None:
    flags = np.array([0.0] * 90 + [1.0] * 10)
    assert number_cells("flag", flags).count(flags).tolist() == [90, 10, 0]


def test_words_have_cells_the_rare_and_the_new_share_one() -> None:
    counts = {f"w{number:02}": 100 - number for number in range(60)} | {"": 7}
    cells = category_cells("carrier", counts)
    assert len(cells.words) == 50
    assert "w59" not in cells.words
    found = cells.count(np.array(["w00", "w00", "w59", "unheard", "", None], object))
    named = dict(zip(cells.names, found.tolist(), strict=True))
    assert (named["w00"], named[OTHER], named[MISSING]) == (2, 2, 2)
    assert found.sum() == 6
