"""How good probabilities of several classes are.

Belongs here: measures of predictions against labels, of rows and of weighted rows. Does not belong here:
other kinds of labels, or thresholds (`airloop.verdict`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from airloop.row_losses import row_losses
from airloop.training.measures import binary
from airloop.use_cases.target import Multiclass
from airloop.verdict import Measures, ReliabilityBin


class Scored(NamedTuple):
    """One model's probabilities, prepared so that a resample costs no more than sums by class."""

    classes: int
    labels: np.ndarray
    """The number of each row's class."""
    chosen: np.ndarray
    """The number of the class that each row was given the highest probability of."""
    losses: np.ndarray
    gaps: np.ndarray
    """That highest probability, minus 1 where it was right."""
    bins: np.ndarray
    """For each row the number of its bin of neighbouring highest probabilities."""

    def figures(self, weights: np.ndarray) -> dict[str, float]:
        """The figures of weighted rows [rows] by name, as `Measures` has them; NaN where one is not defined.

        The calibration error is that of the class chosen (Guo et al., On Calibration of Modern Neural
        Networks, ICML 2017), in bins of equally many rows.
        """
        total = weights.sum()
        right = self.labels == self.chosen
        there = np.bincount(self.labels, weights, self.classes)
        said = np.bincount(self.chosen, weights, self.classes)
        found = np.bincount(self.labels, weights * right, self.classes)
        # A class that is neither there nor said has no F1; the mean is over those that are there.
        f1 = np.divide(2 * found, there + said, out=np.zeros(self.classes), where=there + said > 0)
        return {
            "accuracy": float(weights @ right / total),
            "log_loss": float(self.losses @ weights / total),
            "macro_f1": float(f1[there > 0].mean()) if (there > 0).any() else float("nan"),
            "calibration_error": float(np.abs(np.bincount(self.bins, self.gaps * weights)).sum() / total),
        }


def scored(target: Multiclass, labels: np.ndarray, probabilities: np.ndarray) -> Scored:
    """Prepare `probabilities` [rows, classes] of `labels` [rows], numbers of classes."""
    labels, chosen = labels.astype(np.int64), probabilities.argmax(axis=1)
    highest = probabilities.max(axis=1).astype(np.float64)
    bins = np.empty(len(labels), np.int64)
    for number, rows in enumerate(binary.equal_bins(highest)):
        bins[rows] = number
    return Scored(
        classes=len(target.classes),
        labels=labels,
        chosen=chosen,
        losses=row_losses(target, labels, probabilities),
        gaps=highest - (chosen == labels),
        bins=bins,
    )


def measure(target: Multiclass, labels: np.ndarray, probabilities: np.ndarray) -> Measures:
    """All measures of `probabilities`, [rows, classes], against `labels`, [rows] of numbers of classes."""
    rows = len(labels)
    rarest = int(np.bincount(labels.astype(np.int64), minlength=len(target.classes)).min()) if rows else 0
    counts = {"kind": "multiclass", "rows": rows, "positives": rarest}
    if not rows or not np.isfinite(probabilities).all():
        return Measures(**counts)
    return Measures(**counts, **scored(target, labels, probabilities).figures(np.ones(rows)))


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> tuple[ReliabilityBin, ...]:
    """That of the class chosen: how probable it was said to be, and how often it was the one."""
    if not len(labels):
        return ()
    right = (probabilities.argmax(axis=1) == labels).astype(np.int8)
    return binary.reliability(right, probabilities.max(axis=1))
