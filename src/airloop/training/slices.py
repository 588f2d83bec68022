"""Parts of the test rows that are looked at for themselves.

Belongs here: which rows belong to which slice. Does not belong here: measures, or what a slice must reach
(`airloop.verdict`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from airloop.training.examples import Columns
from airloop.training.statistics import SECONDS_PER_HOUR
from airloop.use_cases.gates import Slicing
from airloop.use_cases.spec import UseCase


class Slice(NamedTuple):
    """Some of the rows, by what they have in common."""

    name: str
    rows: np.ndarray
    """Bool vector."""


def slices_of(use_case: UseCase, columns: Columns) -> Iterator[Slice]:
    """Every slice of `use_case.gates.slices` that has a row, slicing by slicing.

    Rows whose value is missing are a slice of their own.
    """
    types = {item.name: item.type for item in use_case.inputs}
    for cut in use_case.gates.slices:
        values = columns[cut.input]
        if types[cut.input] == "string":
            found: Iterable[Slice] = _by_word(cut, values)
        elif types[cut.input] == "local_time":
            hours = values / SECONDS_PER_HOUR % 24
            found = _by_edges(cut, hours, 0.0, 24.0, values == 0)
        else:
            found = _by_edges(cut, values, -np.inf, np.inf, ~np.isfinite(values))
        yield from (part for part in found if part.rows.any())


def _by_word(cut: Slicing, words: np.ndarray) -> Iterator[Slice]:
    for word in np.unique(words.astype(str)):
        yield Slice(f"{cut.name}={word or 'missing'}", words == word)


def _by_edges(
    cut: Slicing, values: np.ndarray, low: float, high: float, missing: np.ndarray
) -> Iterator[Slice]:
    for start, end in pairwise((low, *cut.edges, high)):
        # A first edge at the very start of the day is no slice.
        if start < end:
            yield Slice(f"{cut.name}={start:g}..{end:g}", (values >= start) & (values < end) & ~missing)
    yield Slice(f"{cut.name}=missing", missing)
