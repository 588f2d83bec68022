"""How good probabilities of a label that is 1 or 0 are.

Belongs here: measures of predictions against labels, of rows and of weighted rows. Does not belong here:
other kinds of labels, or thresholds (`airloop.verdict`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score

from airloop.row_losses import log_losses
from airloop.verdict import Measures, ReliabilityBin

CALIBRATION_BINS: Final = 15


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of `log_losses`."""
    return float(np.mean(log_losses(labels, probabilities)))


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


class Scored(NamedTuple):
    """One model's predictions, prepared so that a resample costs no sort."""

    order: np.ndarray
    """Rows by rising probability."""
    ties: np.ndarray
    """For each place in `order` the number of its group of equal probabilities."""
    losses: np.ndarray
    """Log loss of each row, in nats."""
    gaps: np.ndarray
    """The prediction minus the label, of each row."""
    bins: np.ndarray
    """For each row the number of its bin of neighbouring predictions."""
    labels: np.ndarray

    def figures(self, weights: np.ndarray) -> dict[str, float]:
        """The figures of weighted rows [rows] by name, as `Measures` has them; NaN where one is not defined.

        The bins of the calibration error stay those of all rows. On a resample it is on average larger than
        on the rows themselves, as on few rows it is larger than on many: its range says how far it moves.
        """
        auc, precision = self._ranked(weights)
        total = weights.sum()
        return {
            "roc_auc": auc,
            "average_precision": precision,
            "log_loss": float(self.losses @ weights / total),
            "brier": float(self.gaps**2 @ weights / total),
            "calibration_error": float(np.abs(np.bincount(self.bins, self.gaps * weights)).sum() / total),
        }

    def _ranked(self, weights: np.ndarray) -> tuple[float, float]:
        """The area under the curve of weighted rows, and their average precision."""
        weight, positive = weights[self.order], self.labels[self.order] == 1
        groups = int(self.ties[-1]) + 1
        above = np.bincount(self.ties, weight * positive, groups)
        below = np.bincount(self.ties, weight * ~positive, groups)
        both = above.sum() * below.sum()
        if not both:
            return float("nan"), float("nan")
        area = float((above * (np.cumsum(below) - below / 2)).sum() / both)
        # From the highest prediction down: a group's positives count with the precision that it reaches.
        above, below = above[::-1], below[::-1]
        true = np.cumsum(above)
        found = true + np.cumsum(below)
        precision = np.divide(true, found, out=np.zeros_like(true), where=found > 0)
        return area, float((above * precision).sum() / true[-1])


def scored(labels: np.ndarray, probabilities: np.ndarray) -> Scored:
    """Prepare `probabilities` [rows] of `labels` [rows], 0 or 1."""
    order = np.argsort(probabilities, kind="stable")
    ties = np.concatenate([[0], np.cumsum(np.diff(probabilities[order]) > 0)]).astype(np.int64)
    bins = np.empty(len(labels), np.int64)
    for number, rows in enumerate(equal_bins(probabilities)):
        bins[rows] = number
    gaps = probabilities.astype(np.float64) - labels
    return Scored(order, ties, log_losses(labels, probabilities), gaps, bins, labels)
