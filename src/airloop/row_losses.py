"""The loss of a single answer, as training, rollouts and monitoring all count it, by the label's kind.

Belongs here: those formulas. Does not belong here: means, ranges or limits.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from airloop.use_cases.target import Quantiles, Target

_SMALLEST: Final = 1e-7


def row_losses(target: Target, labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """What each row's answer costs, float64 [rows]; the mean is the figure `target.loss`.

    `labels` are [rows]: 0 and 1, numbers of classes, or numbers. `answers` are [rows], or [rows, numbers]
    for several classes or levels.
    """
    if target.kind == "binary":
        return log_losses(labels, answers)
    if target.kind == "multiclass":
        chosen = np.take_along_axis(answers, labels.astype(np.int64)[:, None], axis=1)[:, 0]
        return log_losses(np.ones(len(labels)), chosen)
    if isinstance(target, Quantiles):
        return pinball_losses(labels, answers, target.levels)
    gaps = answers.astype(np.float64) - labels
    losses: np.ndarray = gaps**2 if target.estimates == "mean" else np.abs(gaps)
    return losses


def log_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Negative log likelihood of each row in nats; probabilities of 0 and 1 count as 1e-7 away from it."""
    p = np.clip(probabilities.astype(np.float64), _SMALLEST, 1 - _SMALLEST)
    losses: np.ndarray = -np.where(labels == 1, np.log(p), np.log1p(-p))
    return losses


def pinball_losses(labels: np.ndarray, quantiles: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """The mean over `levels` of each row's loss (Koenker and Bassett, Regression Quantiles, 1978)."""
    above = labels.astype(np.float64)[:, None] - quantiles
    taus = np.array(levels)
    losses: np.ndarray = np.maximum(taus * above, (taus - 1) * above).mean(axis=1)
    return losses
