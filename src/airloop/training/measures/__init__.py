"""How good answers are: the figures that a verdict weighs, by the label's kind.

Belongs here: which module measures which kind. Does not belong here: a formula (a module each), or
thresholds (`airloop.verdict`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from airloop.training.measures import binary, multiclass, quantiles, regression
from airloop.use_cases.target import Binary, Multiclass, Quantiles, Target
from airloop.verdict import Measures, ReliabilityBin


class Scored(Protocol):
    """One model's answers, prepared so that a resample of the rows costs little."""

    def figures(self, weights: np.ndarray) -> dict[str, float]:
        """The figures of weighted rows [rows] by name, as `Measures` has them; NaN where not defined."""
        ...


class _Measuring(NamedTuple):
    """What one kind has."""

    measure: Callable[[np.ndarray, np.ndarray], Measures]
    scored: Callable[[np.ndarray, np.ndarray], Scored]
    reliability: Callable[[np.ndarray, np.ndarray], tuple[ReliabilityBin, ...]]


def measure(target: Target, labels: np.ndarray, answers: np.ndarray) -> Measures:
    """All measures of `answers`, [rows] or [rows, numbers of an answer], against `labels`, [rows].

    A measure that is not defined (one class only, no rows, an answer that is not finite) is None, so that
    the verdict fails closed on it.
    """
    return _measuring(target).measure(labels, answers)


def scored(target: Target, labels: np.ndarray, answers: np.ndarray) -> Scored:
    """Prepare `answers` to `labels`; see `measure` for their shapes."""
    return _measuring(target).scored(labels, answers)


def reliability(target: Target, labels: np.ndarray, answers: np.ndarray) -> tuple[ReliabilityBin, ...]:
    """What was predicted for rows with neighbouring answers, and what came of it; of one number each."""
    return _measuring(target).reliability(labels, answers)


def _measuring(target: Target) -> _Measuring:
    if isinstance(target, Binary):
        return _Measuring(binary.measure, binary.scored, binary.reliability)
    if isinstance(target, Multiclass):
        return _Measuring(
            partial(multiclass.measure, target), partial(multiclass.scored, target), multiclass.reliability
        )
    if isinstance(target, Quantiles):
        return _Measuring(
            partial(quantiles.measure, target), partial(quantiles.scored, target), lambda labels, answers: ()
        )
    return _Measuring(regression.measure, regression.scored, regression.reliability)
