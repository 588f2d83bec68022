"""How good predicted quantiles of a number are.

Belongs here: measures of predictions against labels, of rows and of weighted rows. Does not belong here:
other kinds of labels, or thresholds (`airloop.verdict`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from airloop.row_losses import pinball_losses
from airloop.use_cases.target import Quantiles
from airloop.verdict import Measures


class Scored(NamedTuple):
    """One model's quantiles, prepared so that a resample costs no more than products."""

    losses: np.ndarray
    """Of each row, over its levels."""
    covered: np.ndarray
    """1 where the label is at or below the quantile, [rows, levels]."""
    levels: tuple[float, ...]

    def figures(self, weights: np.ndarray) -> dict[str, float]:
        """The figures of weighted rows [rows] by name, as `Measures` has them."""
        total = weights.sum()
        shares = weights @ self.covered / total
        return {
            "pinball_loss": float(self.losses @ weights / total),
            "coverage_error": float(np.abs(shares - np.array(self.levels)).mean()),
        }


def scored(target: Quantiles, labels: np.ndarray, quantiles: np.ndarray) -> Scored:
    """Prepare `quantiles` [rows, levels] of `labels` [rows]."""
    covered = (labels.astype(np.float64)[:, None] <= quantiles).astype(np.float64)
    return Scored(pinball_losses(labels, quantiles, target.levels), covered, target.levels)


def measure(target: Quantiles, labels: np.ndarray, quantiles: np.ndarray) -> Measures:
    """All measures of `quantiles`, [rows, levels], against `labels`, [rows]."""
    rows = len(labels)
    if not rows or not np.isfinite(quantiles).all():
        return Measures(kind="quantiles", rows=rows)
    return Measures(kind="quantiles", rows=rows, **scored(target, labels, quantiles).figures(np.ones(rows)))
