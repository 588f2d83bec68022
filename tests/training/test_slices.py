"""Which rows are in which slice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from airloop.errors import SpecError
from airloop.training.slices import slices_of
from airloop.use_cases.gates import Slicing
from airloop.use_cases.spec import UseCase, define
from tests.training.planted import planted_use_case

COLUMNS = {
    "colour": np.array(["red", "blue", "", "red"], object),
    "due_local": np.array([5 * 3600 + 3599, 86400 * 40 + 6 * 3600, 86400 + 23 * 3600, 0]),
    "heat": np.array([np.nan, 9.99, 10.0, 25.0], np.float32),
}


def cut_by(**fields: Any) -> UseCase:
    spec = planted_use_case()
    return define(
        **{
            **{name: getattr(spec, name) for name in type(spec).model_fields},
            "gates": spec.gates.model_copy(update={"slices": (Slicing(name="cut", **fields),)}),
        }
    )


def rows(**fields: Any) -> dict[str, list[int]]:
    return {part.name: np.flatnonzero(part.rows).tolist() for part in slices_of(cut_by(**fields), COLUMNS)}


def test_words_are_cut_by_value_and_missing_ones_are_a_slice() -> None:
    assert rows(input="colour") == {"cut=missing": [2], "cut=blue": [1], "cut=red": [0, 3]}


def test_times_are_cut_by_the_hour_of_the_day() -> None:
    assert rows(input="due_local", edges=(6, 22)) == {
        "cut=0..6": [0],
        "cut=6..22": [1],
        "cut=22..24": [2],
        "cut=missing": [3],
    }


def test_numbers_are_cut_at_their_edges_and_empty_slices_are_left_out() -> None:
    assert rows(input="heat", edges=(10, 30)) == {
        "cut=-inf..10": [1],
        "cut=10..30": [2, 3],
        "cut=missing": [0],
    }


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"input": "colour", "edges": (1.0,)}, "string input without edges"),
        ({"input": "heat"}, "with them"),
        ({"input": "seen_at", "edges": (1.0,)}, "'seen_at' must be"),
        ({"input": "nothing"}, "'nothing' must be"),
        ({"input": "heat", "edges": (2.0, 1.0)}, "edges must rise"),
    ],
)
def test_a_slicing_that_cannot_be_made_is_refused_by_name(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=f"gates.slices.cut: .*{says}"):
        cut_by(**fields)
