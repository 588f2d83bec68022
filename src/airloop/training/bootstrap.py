"""How far a figure, or a difference of two models' figures, may be chance: bootstrap over blocks of time.

Belongs here: resampling whole blocks and the figures on a resample. Does not belong here: which figures a
verdict weighs, or thresholds (`airloop.verdict`).

Rows of one day share its weather, so single rows tell less than they seem to: days are drawn, not rows (a
cluster bootstrap; Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). Models
are compared on the same draws, which makes the comparison a paired one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np

from airloop.row_losses import row_losses
from airloop.training.measures import equal_bins
from airloop.verdict import Range

RESAMPLES: Final = 1000
LEVEL: Final = 0.95
FEWEST_BLOCKS: Final = 5
"""With two days the low end is the worse day's figure, which says nothing of chance."""


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
    return Scored(order, ties, row_losses(labels, probabilities), gaps, bins, labels)


def resampled(blocks: np.ndarray, seed: int, resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """Weights of the rows for each resample: how often its block, a number in `blocks` [rows], was drawn."""
    random = np.random.default_rng(seed)
    _, block = np.unique(blocks, return_inverse=True)
    count = int(block.max()) + 1
    for _ in range(resamples):
        yield np.bincount(random.integers(0, count, count), minlength=count)[block].astype(np.float64)


def ranges(
    models: Mapping[str, np.ndarray], labels: np.ndarray, blocks: np.ndarray, seed: int
) -> dict[str, Range]:
    """Ranges of each model's figures and of their differences from the first model's.

    `models` has probabilities [rows] by name, the candidate's first. The names of the ranges are
    `<model>.<figure>`, and for the others `roc_auc_over_<model>` (the first's minus the other's) and
    `log_loss_under_<model>` (the other's minus the first's): above 0 the first is better.
    Empty where there are fewer than `FEWEST_BLOCKS` blocks, one class, or a prediction that is not finite.
    """
    finite = all(np.isfinite(found).all() for found in models.values())
    if not finite or len(np.unique(blocks)) < FEWEST_BLOCKS or len(np.unique(labels)) < 2:
        return {}
    prepared = {name: scored(labels, found) for name, found in models.items()}
    first, *others = prepared
    drawn: dict[str, list[float]] = {}
    for weights in resampled(blocks, seed):
        figures = {name: model.figures(weights) for name, model in prepared.items()}
        for name, found in figures.items():
            for figure, value in found.items():
                drawn.setdefault(f"{name}.{figure}", []).append(value)
        ours = figures[first]
        for name in others:
            theirs = figures[name]
            drawn.setdefault(f"roc_auc_over_{name}", []).append(ours["roc_auc"] - theirs["roc_auc"])
            drawn.setdefault(f"log_loss_under_{name}", []).append(theirs["log_loss"] - ours["log_loss"])
    return {name: _range(np.array(values)) for name, values in drawn.items()}


def gain_range(gains: np.ndarray, blocks: np.ndarray, seed: int) -> Range | None:
    """The range of the mean of `gains` [rows]; None where there are too few of `blocks` [rows]."""
    found, block = np.unique(blocks, return_inverse=True)
    if not np.isfinite(gains).all() or len(found) < FEWEST_BLOCKS:
        return None
    sums, rows = np.bincount(block, gains), np.bincount(block)
    # A mean needs the blocks' sums alone, and not a weight for each row.
    means = [weights @ sums / (weights @ rows) for weights in resampled(np.arange(len(found)), seed)]
    return _range(np.array(means))


def _range(values: np.ndarray) -> Range:
    known = values[np.isfinite(values)]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Range(
        low=float(low), high=float(high), level=LEVEL, share_not_above_zero=float((known <= 0).mean())
    )
