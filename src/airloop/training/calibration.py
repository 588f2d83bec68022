"""Temperature scaling: a slope that makes an ensemble as confident as it should be.

Belongs here: fitting it, and deciding whether it helps. Does not belong here: applying them
inside a model (`airloop.training.network`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from airloop.training.measures.binary import log_loss

_SLOPES: Final = np.round(np.arange(0.4, 1.6001, 0.02), 2)
_LEAST_ROWS: Final = 200


class Calibration(NamedTuple):
    """A logit becomes `slope * logit + offset`."""

    slope: float
    offset: float

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities, float64 of the logits' shape."""
        return _sigmoid(self.slope * logits.astype(np.float64) + self.offset)


IDENTITY: Final = Calibration(1.0, 0.0)


def calibrate(logits: np.ndarray, members: np.ndarray, labels: np.ndarray, centre: float) -> Calibration:
    """The calibration for an ensemble that gave `logits` [rows] to validation rows, in order of time, and
    whose members gave `members` [rows, members].

    Only the confidence is changed: the slope turns about `centre`, the logit of the train split's base rate.
    The level of a few weeks is their weather, and no help in the next ones. The slope is fitted on the
    earlier half, and kept (refitted on all rows) only if it lowers the log loss of the later half.
    Otherwise, and with few rows or one class, it is `IDENTITY`.

    A slope above 1 goes no further than pooling explains: the mean of members that differ is less sure than
    they are (Rahaman and Thiery, "Uncertainty quantification and deep ensembles", NeurIPS 2021), by the
    ensemble's best slope over theirs on the same rows. What is beyond is asked by those weeks of every
    model, and would not last: measured in `docs/adr/0019-members-see-different-features.md`.
    """
    half = len(labels) // 2
    early, late = slice(None, half), slice(half, None)
    if half < _LEAST_ROWS or not 0 < labels[early].sum() < half:
        return IDENTITY
    trial = _about(centre, _best_slope(logits[early], labels[early], centre))
    before = log_loss(labels[late], IDENTITY.apply(logits[late]))
    after = log_loss(labels[late], trial.apply(logits[late]))
    if after >= before:
        return IDENTITY
    asked = _best_slope(logits, labels, centre)
    if asked <= 1:
        return _about(centre, asked)
    theirs = _best_slope(members.ravel(), np.repeat(labels, members.shape[1]), centre)
    return _about(centre, min(asked, max(asked / theirs, 1.0)))


def _best_slope(logits: np.ndarray, labels: np.ndarray, centre: float) -> float:
    """The best in `_SLOPES`: the log loss is convex in it, and a search cannot run away."""
    losses = [log_loss(labels, _about(centre, slope).apply(logits)) for slope in _SLOPES]
    return float(_SLOPES[int(np.argmin(losses))])


def _about(centre: float, slope: float) -> Calibration:
    return Calibration(slope, centre * (1 - slope))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    probabilities: np.ndarray = 1.0 / (1.0 + np.exp(-np.clip(x, -60, 60)))
    return probabilities
