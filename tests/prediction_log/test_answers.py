"""The log's answers as numbers, by the label's kind."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from airloop.prediction_log.answers import numbers_of, one_number
from airloop.use_cases.target import Binary, Multiclass, Quantiles, Regression

LISTS = pa.array([[0.25], None, [], [0.5, 0.75], [1.0]], pa.list_(pa.float64()))
CLASSES = Multiclass(classes=("a", "b", "c"))


@pytest.mark.parametrize("target", [Binary(), Regression(unit="minutes")], ids=lambda target: target.kind)
@pytest.mark.parametrize("chunked", [True, False])
def test_an_answer_of_one_number_is_that_number(target: Binary | Regression, chunked: bool) -> None:
    found = numbers_of(pa.chunked_array([LISTS.slice(0, 2), LISTS.slice(2)]) if chunked else LISTS, target)
    assert found[[0, 4]].tolist() == [0.25, 1.0]
    assert np.isnan(found[1:4]).all(), "no answer, or one to another label"


def test_an_answer_of_several_numbers_is_a_row() -> None:
    lists = pa.array([[0.1, 0.7, 0.2], None, [0.5]], pa.large_list(pa.float64()))
    found = numbers_of(lists, CLASSES)
    assert found.shape == (3, 3)
    assert found[0].tolist() == [0.1, 0.7, 0.2]
    assert np.isnan(found[1:]).all()
    assert numbers_of(lists.slice(0, 0), CLASSES).shape == (0, 3)


def test_one_number_stands_for_each_answer() -> None:
    rows = np.array([[0.1, 0.7, 0.2], [0.6, 0.1, 0.3]])
    assert one_number(CLASSES, rows).tolist() == [1, 0]
    assert one_number(Quantiles(unit="minutes", levels=(0.1, 0.5, 0.9)), rows).tolist() == [0.7, 0.1]
    assert one_number(Quantiles(unit="minutes", levels=(0.1, 0.9)), rows[:, :2]).tolist() == [0.1, 0.6]
    assert one_number(Regression(unit="minutes"), rows[:, 0]).tolist() == [0.1, 0.6]
