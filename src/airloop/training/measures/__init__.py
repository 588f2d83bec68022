"""How good answers are: the figures that a verdict weighs, by the label's kind.

Belongs here: which module measures which kind. Does not belong here: a formula (a module each), or
thresholds (`airloop.verdict`).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from airloop.training.measures import binary, multiclass, quantiles, regression
from airloop.use_cases.target import Binary, Multiclass, Quantiles, Target
from airloop.verdict import Measures, ReliabilityBin


class Scored(Protocol):
    """One model's answers, prepared so that a resample of the rows costs little."""

    def figures(self, weights: np.ndarray) -> dict[str, float]:
        """The figures of weighted rows [rows] by name, as `Measures` has them; NaN where not defined."""
        ...


def measure(target: Target, labels: np.ndarray, answers: np.ndarray) -> Measures:
    """All measures of `answers`, [rows] or [rows, numbers of an answer], against `labels`, [rows].

    A measure that is not defined (one class only, no rows, an answer that is not finite) is None, so that
    the verdict fails closed on it.
    """
    if isinstance(target, Binary):
        return binary.measure(labels, answers)
    if isinstance(target, Multiclass):
        return multiclass.measure(target, labels, answers)
    if isinstance(target, Quantiles):
        return quantiles.measure(target, labels, answers)
    return regression.measure(labels, answers)


def scored(target: Target, labels: np.ndarray, answers: np.ndarray) -> Scored:
    """Prepare `answers` to `labels`; see `measure` for their shapes."""
    if isinstance(target, Binary):
        return binary.scored(labels, answers)
    if isinstance(target, Multiclass):
        return multiclass.scored(target, labels, answers)
    if isinstance(target, Quantiles):
        return quantiles.scored(target, labels, answers)
    return regression.scored(labels, answers)


def reliability(target: Target, labels: np.ndarray, answers: np.ndarray) -> tuple[ReliabilityBin, ...]:
    """What was predicted for rows with neighbouring answers, and what came of it; of one number each."""
    if isinstance(target, Binary):
        return binary.reliability(labels, answers)
    if isinstance(target, Multiclass):
        return multiclass.reliability(labels, answers)
    if isinstance(target, Quantiles):
        return ()
    return regression.reliability(labels, answers)
