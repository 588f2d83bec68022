"""How good answers were, as sums that add up: by the hour, by slice, and by how high the answer was.

Belongs here: from answers and labels to sums, and from sums to figures. Does not belong here: joining answers
to labels (`spark_jobs.count_scores`), or what figures say (`decay`).

Sums over rows are as small for a hundred million answers as for a hundred, and any longer window is a sum of
its hours. All figures but one are exact; ROC AUC takes answers of one of a hundred cells for equal.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from airloop.row_losses import log_losses

CELLS: Final = 100
"""Of equal width: ROC AUC is then within a few thousandths of that of the answers themselves."""
CALIBRATION_BINS: Final = 15
"""As in the verdict (`airloop.training.measures`), each of about equally many rows."""
EVERYTHING: Final = ""
"""The slice of all answers."""


class Scores(NamedTuple):
    """Sums over the answers of each cell, [cells] each."""

    answers: np.ndarray
    labelled: np.ndarray
    """Of those, the ones with a label; all others sum over these alone."""
    positives: np.ndarray
    probability: np.ndarray
    loss: np.ndarray
    """Negative log likelihood in nats."""
    positive_loss: np.ndarray
    """Of the positives alone."""
    loss_squared: np.ndarray
    """Squares of the losses, for the spread of the gain."""
    squared_error: np.ndarray

    def plus(self, other: Scores) -> Scores:
        """The sums of both."""
        return Scores(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Figures(BaseModel):
    """What `Scores` say; None where it is not defined."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    answers: int
    labelled: int
    positives: int
    roc_auc: float | None = None
    log_loss: float | None = None
    gain: float | None = None
    """How much lower that is than the rate of positives, told for every row, would have: nats a row."""
    brier: float | None = None
    calibration_error: float | None = None
    gain_deviation: float | None = None
    """Standard deviation of a row's gain."""

    @property
    def label_share(self) -> float:
        """How many of the answers have a label."""
        return self.labelled / self.answers if self.answers else 0.0


def nothing() -> Scores:
    """The sums over no answers."""
    return Scores(*(np.zeros(CELLS) for _ in Scores._fields))


def cells_of(probabilities: np.ndarray) -> np.ndarray:
    """The cell of each of `probabilities`, [rows]."""
    return np.clip((probabilities * CELLS).astype(np.int64), 0, CELLS - 1)


def scores_of(probabilities: np.ndarray, labels: np.ndarray) -> Scores:
    """The sums over answers, [rows], whose `labels`, [rows], are 0, 1, or NaN where none is known."""
    cells, known = cells_of(probabilities), ~np.isnan(labels)
    loss = log_losses(labels, probabilities)

    def over(values: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.bincount(cells[known], weights=values[known], minlength=CELLS)
        return found

    return Scores(
        answers=np.bincount(cells, minlength=CELLS).astype(np.float64),
        labelled=np.bincount(cells[known], minlength=CELLS).astype(np.float64),
        positives=over(labels),
        probability=over(probabilities.astype(np.float64)),
        loss=over(loss),
        positive_loss=over(np.where(labels == 1, loss, 0.0)),
        loss_squared=over(loss**2),
        squared_error=over((probabilities - labels) ** 2),
    )


def figures(scores: Scores) -> Figures:
    """What `scores` say."""
    answers, rows, positives = (int(sums.sum()) for sums in scores[:3])
    if not 0 < positives < rows:
        return Figures(answers=answers, labelled=rows, positives=positives)
    rate, loss = positives / rows, float(scores.loss.sum() / rows)
    base = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
    return Figures(
        answers=answers,
        labelled=rows,
        positives=positives,
        roc_auc=_roc_auc(scores),
        log_loss=loss,
        gain=float(base - loss),
        brier=float(scores.squared_error.sum() / rows),
        calibration_error=_calibration_error(scores),
        gain_deviation=_gain_deviation(scores, rate, float(base - loss)),
    )


def _gain_deviation(scores: Scores, rate: float, gain: float) -> float:
    """Of a row's gain: what the base rate loses by the row's label, less what the answer does."""
    rows, positives, loss = (float(sums.sum()) for sums in (scores.labelled, scores.positives, scores.loss))
    of_positives = float(scores.positive_loss.sum())
    squares = float(scores.loss_squared.sum())
    for base, count, lost in (
        (-np.log(rate), positives, of_positives),
        (-np.log1p(-rate), rows - positives, loss - of_positives),
    ):
        squares += base * base * count - 2 * base * lost
    return float(np.sqrt(max(squares / rows - gain**2, 0.0)))


def _roc_auc(scores: Scores) -> float:
    """The share of pairs of a positive and a negative that are in the right order, half of one cell's."""
    negatives = scores.labelled - scores.positives
    below = np.concatenate([[0.0], np.cumsum(negatives)[:-1]])
    right = (scores.positives * (below + negatives / 2)).sum()
    return float(right / (scores.positives.sum() * negatives.sum()))


def _calibration_error(scores: Scores) -> float:
    """Mean of |observed rate - mean answer|, over bins of cells with about equally many rows."""
    rows = scores.labelled.sum()
    bins = np.minimum(np.cumsum(scores.labelled) - scores.labelled / 2, rows - 1) / rows * CALIBRATION_BINS
    numbers = bins.astype(np.int64)
    gaps = np.bincount(numbers, weights=scores.positives - scores.probability, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / rows)
