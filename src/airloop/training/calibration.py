"""Temperature scaling: a slope that makes a model as confident as it should be.

Belongs here: fitting it, and deciding whether it helps. Does not belong here: applying them
inside a model (`airloop.training.network`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from airloop.training.measures import log_loss

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


def calibrate(logits: np.ndarray, labels: np.ndarray, centre: float) -> Calibration:
    """The calibration for a model that gave `logits` to validation rows, in order of time.

    Only the confidence is changed: the slope turns about `centre`, the logit of the train split's base rate.
    The level of a few weeks is their weather, and no help in the next ones. The slope is fitted on the
    earlier half, and kept (refitted on all rows) only if it lowers the log loss of the later half.
    Otherwise, and with few rows or one class, it is `IDENTITY`.
    """
    half = len(labels) // 2
    early, late = slice(None, half), slice(half, None)
    if half < _LEAST_ROWS or not 0 < labels[early].sum() < half:
        return IDENTITY
    trial = _fit(logits[early], labels[early], centre)
    before = log_loss(labels[late], IDENTITY.apply(logits[late]))
    after = log_loss(labels[late], trial.apply(logits[late]))
    return _fit(logits, labels, centre) if after < before else IDENTITY


def _fit(logits: np.ndarray, labels: np.ndarray, centre: float) -> Calibration:
    """The best slope in `_SLOPES`: the log loss is convex in it, and a search cannot run away."""
    losses = [log_loss(labels, _about(centre, slope).apply(logits)) for slope in _SLOPES]
    return _about(centre, float(_SLOPES[int(np.argmin(losses))]))


def _about(centre: float, slope: float) -> Calibration:
    return Calibration(slope, centre * (1 - slope))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    probabilities: np.ndarray = 1.0 / (1.0 + np.exp(-np.clip(x, -60, 60)))
    return probabilities
