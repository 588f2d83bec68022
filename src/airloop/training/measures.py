"""How good probabilities are: the figures that a verdict weighs.

Belongs here: measures of predictions against labels. Does not belong here: thresholds (`airloop.verdict`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from airloop.verdict import Measures

CALIBRATION_BINS: Final = 15
_SMALLEST: Final = 1e-7


def row_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Negative log likelihood of each row in nats; probabilities of 0 and 1 count as 1e-7 away from it."""
    p = np.clip(probabilities.astype(np.float64), _SMALLEST, 1 - _SMALLEST)
    losses: np.ndarray = -np.where(labels == 1, np.log(p), np.log1p(-p))
    return losses


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of `row_losses`."""
    return float(np.mean(row_losses(labels, probabilities)))


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error over `CALIBRATION_BINS` bins that hold equally many rows."""
    order = np.argsort(probabilities, kind="stable")
    bins = np.array_split(order, min(CALIBRATION_BINS, len(order)))
    gaps = [abs(float(probabilities[rows].mean()) - float(labels[rows].mean())) * len(rows) for rows in bins]
    return sum(gaps) / len(order)


def measure(labels: np.ndarray, probabilities: np.ndarray) -> Measures:
    """All measures of `probabilities`, [rows], against `labels`, [rows] of 0 and 1.

    A measure that is not defined (one class only, no rows, a prediction that is not finite) is None, so
    that the verdict fails closed on it.
    """
    rows, positives = len(labels), int(labels.sum())
    if not 0 < positives < rows or not np.isfinite(probabilities).all():
        return Measures(rows=rows, positives=positives)
    probabilities = probabilities.astype(np.float64)
    return Measures(
        rows=rows,
        positives=positives,
        roc_auc=float(roc_auc_score(labels, probabilities)),
        log_loss=log_loss(labels, probabilities),
        average_precision=float(average_precision_score(labels, probabilities)),
        brier=float(np.mean((probabilities - labels) ** 2)),
        calibration_error=calibration_error(labels, probabilities),
    )
