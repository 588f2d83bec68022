"""How good probabilities are: the figures that a verdict weighs.

Belongs here: measures of predictions against labels. Does not belong here: thresholds (`airloop.verdict`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score

from airloop.row_losses import row_losses
from airloop.verdict import Measures, ReliabilityBin

CALIBRATION_BINS: Final = 15


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of `row_losses`."""
    return float(np.mean(row_losses(labels, probabilities)))


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error: the mean of |observed rate - mean prediction| over bins, by their rows.

    The definition is that of Naeini, Cooper and Hauskrecht (Obtaining Well Calibrated Probabilities Using
    Bayesian Binning, AAAI 2015). The bins hold equally many rows, as Nixon et al. advise (Measuring
    Calibration in Deep Learning, CVPR Workshops 2019): predictions crowd, and bins of equal width would be
    empty. With few rows it is larger than it should be: 15 bins of 100 rows have 0.03 by chance alone.
    """
    bins = equal_bins(probabilities)
    gaps = [abs(float(probabilities[rows].mean()) - float(labels[rows].mean())) * len(rows) for rows in bins]
    return sum(gaps) / len(labels)


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> tuple[ReliabilityBin, ...]:
    """The bins of `calibration_error`, by rising prediction; none where that is not defined.

    Intervals are Wilson's (Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927),
    at 95% for each bin by itself. They take rows for independent, and are therefore rather short: rows of a
    day share its weather.
    """
    if not len(labels) or not np.isfinite(probabilities).all():
        return ()
    return tuple(_bin(labels[rows], probabilities[rows]) for rows in equal_bins(probabilities))


def equal_bins(probabilities: np.ndarray) -> list[np.ndarray]:
    """Numbers of the rows of each of `CALIBRATION_BINS` bins, or of one bin a row."""
    order = np.argsort(probabilities, kind="stable")
    return np.array_split(order, min(CALIBRATION_BINS, len(order)))


def _bin(labels: np.ndarray, probabilities: np.ndarray) -> ReliabilityBin:
    positives = int(labels.sum())
    interval = binomtest(positives, len(labels)).proportion_ci(0.95, method="wilson")
    return ReliabilityBin(
        rows=len(labels),
        mean_prediction=float(probabilities.astype(np.float64).mean()),
        observed_rate=positives / len(labels),
        low=float(interval.low),
        high=float(interval.high),
    )


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
