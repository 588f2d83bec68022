"""How much each input matters to a model: contributions to single predictions, averaged.

Belongs here: which rows are explained, and means of the contributions' sizes, over all rows and by slice.
Does not belong here: explaining a row (`airloop.training.explain`), or showing it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import numpy as np

from airloop.training.examples import Examples, take
from airloop.training.explain import BACKGROUND_ROWS, PERMUTATIONS, Explainer, sample
from airloop.training.served_model import ServedModel
from airloop.training.slices import slices_of
from airloop.use_cases.spec import UseCase
from airloop.verdict import Part

log = logging.getLogger(__name__)

EXPLAINED_ROWS: Final = 200
FEWEST_ROWS: Final = 50
"""With fewer test rows there is no importance worth showing."""
LEAST_SLICE_ROWS: Final = 15
"""Slices with fewer explained rows have no mean worth showing."""


class SliceImportance(Part):
    """Importance on the explained rows of one slice."""

    name: str
    rows: int
    importance: Mapping[str, float]


class Importance(Part):
    """Mean size of each input's contribution, |SHAP|, over explained test rows (see `explained_as`)."""

    rows: int
    background_rows: int
    permutations: int
    base: float
    """What contributions are counted from, on average."""
    importance: Mapping[str, float]
    """By input, the greatest first."""
    slices: tuple[SliceImportance, ...]


def importance_of(
    spec: UseCase,
    model: ServedModel,
    test: Examples,
    *,
    rows: int | None = None,
    background_rows: int = BACKGROUND_ROWS,
    permutations: int = PERMUTATIONS,
) -> tuple[Importance, dict[str, np.ndarray]]:
    """The importance of the model's inputs on `rows` test rows (by default `EXPLAINED_ROWS`), and the
    background rows that it rests on.

    Both are samples drawn with the spec's seed, and no row is in both. The model answers about
    rows * background_rows * 2 * inputs * permutations rows for it.
    """
    wanted = EXPLAINED_ROWS if rows is None else rows
    drawn = sample(test.columns, wanted + background_rows, spec.training.seed)
    mixed = np.random.default_rng(spec.training.seed).permutation(drawn)
    # With few test rows, half of them explain the others.
    split = min(background_rows, len(mixed) // 2)
    background = {name: take(test.columns, np.sort(mixed[:split]))[name] for name in model.inputs}
    asked = take(test.columns, np.sort(mixed[split:]))
    explainer = Explainer(
        spec.label.target, model, background, seed=spec.training.seed, permutations=permutations
    )
    explained = explainer.explain(asked)
    sizes = {name: np.abs(values) for name, values in explained.contributions.items()}
    return Importance(
        rows=len(mixed) - split,
        background_rows=split,
        permutations=permutations,
        base=float(explained.base.mean()),
        importance=_means(sizes),
        slices=tuple(
            SliceImportance(
                name=part.name,
                rows=int(part.rows.sum()),
                importance=_means({name: values[part.rows] for name, values in sizes.items()}),
            )
            for part in slices_of(spec, asked)
            if part.rows.sum() >= LEAST_SLICE_ROWS
        ),
    ), background


def _means(sizes: Mapping[str, np.ndarray]) -> dict[str, float]:
    means = {name: float(values.mean()) for name, values in sizes.items()}
    return dict(sorted(means.items(), key=lambda item: (-item[1], item[0])))
