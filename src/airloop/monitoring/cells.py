"""How a feature's values are counted: the cells of a profile, and which one a value falls into.

Belongs here: choosing cells from the reference's values, and naming them. Does not belong here: counting
(Spark does it, `spark_jobs.profile`), or what counts say (`homogeneity`).

Counts, and not samples, are what windows are compared by: they add up over hours and days, they are as small
for a hundred million rows as for a hundred, and any later window can be compared with them exactly.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

NUMBER_CELLS: Final = 10
"""Cells of equally many reference rows: with 10, a shift of the mean shows in several, and each has enough
rows in a window of some hundred."""
MOST_WORDS: Final = 50
"""The most frequent words have cells of their own; a thousand rare ones would only add noise."""
MISSING: Final = "missing"
OTHER: Final = "other"


class Cells(BaseModel):
    """The cells of one feature; every value falls into exactly one."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    feature: str
    kind: Literal["number", "category"]
    edges: tuple[float, ...] = ()
    """Of numbers: a value belongs to the first cell whose edge is not below it, or to the last cell."""
    words: tuple[str, ...] = ()
    """Of a category: those with a cell of their own; all others share one."""

    @property
    def names(self) -> tuple[str, ...]:
        """The cells in order, the last for missing values."""
        if self.kind == "category":
            return (*self.words, OTHER, MISSING)
        bounds = [f"<= {edge:g}" for edge in self.edges]
        return (*bounds, f"> {self.edges[-1]:g}" if self.edges else "any", MISSING)

    def places(self, values: np.ndarray) -> np.ndarray:
        """The number of each value's cell, [rows]; NaN, None and "" are missing."""
        if self.kind == "number":
            numbers = as_models_have_them(values)
            inner = np.searchsorted(self.edges, numbers, side="left")
            return np.where(np.isnan(numbers), len(self.edges) + 1, inner)
        place = {word: number for number, word in enumerate(self.words)}
        missing, other = len(self.words) + 1, len(self.words)
        return np.array([missing if not v else place.get(str(v), other) for v in values.tolist()], np.int64)

    def count(self, values: np.ndarray) -> np.ndarray:
        """How many of `values` [rows] each cell has, int64 [cells]."""
        return np.bincount(self.places(values), minlength=len(self.names))

    def count_by(self, groups: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The different `groups` [rows], sorted, and how many of the `values` [rows] of each every cell has,
        int64 [groups, cells]."""
        found, group = np.unique(groups, return_inverse=True)
        shape = len(found), len(self.names)
        places = group * shape[1] + self.places(values)
        return found, np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape)


def as_models_have_them(values: np.ndarray) -> np.ndarray:
    """Numbers as float64, rounded as models get them: 0.7 of a training set and of a log are one value."""
    found: np.ndarray = values.astype(np.float32).astype(np.float64)
    return found


def number_cells(feature: str, values: np.ndarray) -> Cells:
    """Cells with about equally many of the reference's `values` [rows]; fewer where one value is frequent."""
    numbers = as_models_have_them(values)
    known = numbers[np.isfinite(numbers)]
    if not len(known):
        return Cells(feature=feature, kind="number")
    shares = np.arange(1, NUMBER_CELLS) / NUMBER_CELLS
    # Values that occur, and not means of two: an edge between 0 and 1 of a flag would say nothing.
    quantiles = np.quantile(known, shares, method="inverted_cdf").tolist()
    return Cells(feature=feature, kind="number", edges=tuple(sorted(set(quantiles))))


def category_cells(feature: str, counts: dict[str, int]) -> Cells:
    """Cells for the most frequent of the reference's words, by how often each occurs."""
    ordered = sorted((word for word in counts if word), key=lambda word: (-counts[word], word))
    return Cells(feature=feature, kind="category", words=tuple(sorted(ordered[:MOST_WORDS])))
