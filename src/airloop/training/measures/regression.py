"""How good predictions of a number are.

Belongs here: measures of predictions against labels, of rows and of weighted rows. Does not belong here:
other kinds of labels, or thresholds (`airloop.verdict`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from airloop.training.measures.binary import equal_bins
from airloop.verdict import Measures, ReliabilityBin

_NORMAL_95 = 1.96


class Scored(NamedTuple):
    """One model's predictions, prepared so that a resample costs no more than products."""

    gaps: np.ndarray
    """The prediction minus the label, of each row."""
    labels: np.ndarray

    def figures(self, weights: np.ndarray) -> dict[str, float]:
        """The figures of weighted rows [rows] by name, as `Measures` has them; NaN where not defined."""
        total = weights.sum()
        squared = float(self.gaps**2 @ weights / total)
        mean = float(self.labels @ weights / total)
        variance = float((self.labels - mean) ** 2 @ weights / total)
        return {
            "root_mean_squared_error": squared**0.5,
            "mean_squared_error": squared,
            "mean_absolute_error": float(np.abs(self.gaps) @ weights / total),
            "r_squared": 1 - squared / variance if variance else float("nan"),
            "absolute_bias": abs(float(self.gaps @ weights / total)),
        }


def scored(labels: np.ndarray, predictions: np.ndarray) -> Scored:
    """Prepare `predictions` [rows] of `labels` [rows]."""
    labels = labels.astype(np.float64)
    return Scored(predictions.astype(np.float64) - labels, labels)


def measure(labels: np.ndarray, predictions: np.ndarray) -> Measures:
    """All measures of `predictions`, [rows], against `labels`, [rows]; none where labels do not differ."""
    rows = len(labels)
    if rows < 2 or not np.isfinite(predictions).all() or np.ptp(labels) == 0:
        return Measures(kind="regression", rows=rows)
    return Measures(kind="regression", rows=rows, **scored(labels, predictions).figures(np.ones(rows)))


def reliability(labels: np.ndarray, predictions: np.ndarray) -> tuple[ReliabilityBin, ...]:
    """Bins of equally many rows, by rising prediction, with the mean label and its 95% interval by the normal
    distribution; empty where that is not defined."""
    if not len(labels) or not np.isfinite(predictions).all():
        return ()
    return tuple(_bin(labels[rows], predictions[rows]) for rows in equal_bins(predictions))


def _bin(labels: np.ndarray, predictions: np.ndarray) -> ReliabilityBin:
    labels = labels.astype(np.float64)
    mean = float(labels.mean())
    half = _NORMAL_95 * float(labels.std(ddof=1)) / len(labels) ** 0.5 if len(labels) > 1 else 0.0
    return ReliabilityBin(
        rows=len(labels),
        mean_prediction=float(predictions.astype(np.float64).mean()),
        observed_rate=mean,
        low=mean - half,
        high=mean + half,
    )
