"""How good probabilities of what happens or not were, by how high they were.

Belongs here: sums and figures of labels that are 1 or 0. Does not belong here: other kinds (`losses`).

All figures but one are exact; ROC AUC takes answers of one of a hundred cells for equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from airloop.monitoring.scores.sums import Figures, Scores, Tested
from airloop.row_losses import log_losses
from airloop.use_cases.target import BRIER, CALIBRATION_ERROR, LOG_LOSS, ROC_AUC, Figure

CELLS: Final = 100
"""Of equal width: ROC AUC is then within a few thousandths of that of the answers themselves."""
GAIN: Final = Figure("gain", "gain over a base rate", higher_is_better=True)
CALIBRATION_BINS: Final = 15
"""As in the verdict (`airloop.training.measures`), each of about equally many rows."""


class BinaryFigures(Figures):
    """What the sums say; None where it is not defined."""

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
    def named(self) -> dict[str, float | None]:
        """See `Figures`."""
        return {figure.name: getattr(self, figure.name) for figure in BinaryScoring.measured}

    @property
    def tested(self) -> tuple[Tested, ...]:
        """The gain, and ROC AUC.

        Log loss alone moves with the share of positives: a stormy day has a higher one with any model. ROC
        AUC does not move with the level of the answers at all: it shows sooner that a model no longer knows
        what is what.
        """
        if self.gain is None or self.gain_deviation is None or self.roc_auc is None:
            return ()
        return (
            Tested(GAIN.name, self.gain, self.gain_deviation**2 / self.labelled, 0.0),
            Tested(ROC_AUC.name, self.roc_auc, self._roc_auc_variance(self.roc_auc), 0.5),
        )

    def _roc_auc_variance(self, area: float) -> float:
        """Hanley and McNeil, The Meaning and Use of the Area under a ROC Curve, Radiology 1982."""
        positives, negatives = self.positives, self.labelled - self.positives
        two_positives, two_negatives = area / (2 - area), 2 * area**2 / (1 + area)
        variance = area * (1 - area)
        variance += (positives - 1) * (two_positives - area**2) + (negatives - 1) * (two_negatives - area**2)
        return max(variance, 0.0) / (positives * negatives)


@dataclass(frozen=True)
class BinaryScoring:
    """See `Scoring`. Other sums than `answers` are of those with a label."""

    cells: ClassVar[int] = CELLS
    sums: ClassVar[tuple[str, ...]] = (
        *("answers", "labelled", "positives", "probability", "loss", "positive_loss", "loss_squared"),
        "squared_error",
    )
    tested: ClassVar[tuple[Figure, ...]] = (ROC_AUC, GAIN)
    measured: ClassVar[tuple[Figure, ...]] = (*tested, LOG_LOSS, BRIER, CALIBRATION_ERROR)

    def scores_of(self, answers: np.ndarray, labels: np.ndarray, usual: Sequence[float] = ()) -> Scores:
        """See `Scoring`; what is usual is the window's own rate of positives."""
        cells, known = np.clip((answers * CELLS).astype(np.int64), 0, CELLS - 1), ~np.isnan(labels)
        loss = log_losses(labels, answers)

        def over(values: np.ndarray) -> np.ndarray:
            found: np.ndarray = np.bincount(cells[known], weights=values[known], minlength=CELLS)
            return found

        return Scores(
            {
                "answers": np.bincount(cells, minlength=CELLS).astype(np.float64),
                "labelled": np.bincount(cells[known], minlength=CELLS).astype(np.float64),
                "positives": over(labels),
                "probability": over(answers.astype(np.float64)),
                "loss": over(loss),
                "positive_loss": over(np.where(labels == 1, loss, 0.0)),
                "loss_squared": over(loss**2),
                "squared_error": over((answers - labels) ** 2),
            }
        )

    def figures(self, scores: Scores) -> BinaryFigures:
        """See `Scoring`."""
        answers, rows, positives = (int(scores[name].sum()) for name in self.sums[:3])
        if not 0 < positives < rows:
            return BinaryFigures(answers=answers, labelled=rows, positives=positives)
        rate, loss = positives / rows, float(scores["loss"].sum() / rows)
        base = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
        return BinaryFigures(
            answers=answers,
            labelled=rows,
            positives=positives,
            roc_auc=_roc_auc(scores),
            log_loss=loss,
            gain=float(base - loss),
            brier=float(scores["squared_error"].sum() / rows),
            calibration_error=_calibration_error(scores),
            gain_deviation=_gain_deviation(scores, rate, float(base - loss)),
        )


def _gain_deviation(scores: Scores, rate: float, gain: float) -> float:
    """Of a row's gain: what the base rate loses by the row's label, less what the answer does."""
    rows, positives, loss, of_positives, squares = (
        float(scores[name].sum())
        for name in ("labelled", "positives", "loss", "positive_loss", "loss_squared")
    )
    for base, count, lost in (
        (-np.log(rate), positives, of_positives),
        (-np.log1p(-rate), rows - positives, loss - of_positives),
    ):
        squares += base * base * count - 2 * base * lost
    return float(np.sqrt(max(squares / rows - gain**2, 0.0)))


def _roc_auc(scores: Scores) -> float:
    """The share of pairs of a positive and a negative that are in the right order, half of one cell's."""
    positives = scores["positives"]
    negatives = scores["labelled"] - positives
    below = np.concatenate([[0.0], np.cumsum(negatives)[:-1]])
    right = (positives * (below + negatives / 2)).sum()
    return float(right / (positives.sum() * negatives.sum()))


def _calibration_error(scores: Scores) -> float:
    """Mean of |observed rate - mean answer|, over bins of cells with about equally many rows."""
    labelled = scores["labelled"]
    rows = labelled.sum()
    bins = np.minimum(np.cumsum(labelled) - labelled / 2, rows - 1) / rows * CALIBRATION_BINS
    gaps = np.bincount(
        bins.astype(np.int64),
        weights=scores["positives"] - scores["probability"],
        minlength=CALIBRATION_BINS,
    )
    return float(np.abs(gaps).sum() / rows)
