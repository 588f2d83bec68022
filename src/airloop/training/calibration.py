"""Platt scaling: a slope and an offset that make probabilities mean what they say.

Belongs here: fitting the two numbers, and deciding whether they help. Does not belong here: applying them
inside a model (`airloop.training.network`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from airloop.training.measures import log_loss

_NEWTON_STEPS: Final = 50
_RIDGE: Final = 1e-6
_LEAST_ROWS: Final = 200


class Calibration(NamedTuple):
    """A logit becomes `slope * logit + offset`."""

    slope: float
    offset: float

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities, float64 of the logits' shape."""
        return _sigmoid(self.slope * logits.astype(np.float64) + self.offset)


IDENTITY: Final = Calibration(1.0, 0.0)


def calibrate(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """The calibration for a model that gave `logits` to validation rows, in order of time.

    It is fitted on the earlier half and kept (refitted on all rows) only if it lowers the log loss of the
    later half: a calm month's level is no help in a stormy one. Otherwise, and with few rows or one class,
    it is `IDENTITY`.
    """
    half = len(labels) // 2
    early, late = slice(None, half), slice(half, None)
    if half < _LEAST_ROWS or len(set(labels[early].tolist())) < 2:
        return IDENTITY
    trial = _fit(logits[early], labels[early])
    before = log_loss(labels[late], IDENTITY.apply(logits[late]))
    after = log_loss(labels[late], trial.apply(logits[late]))
    return _fit(logits, labels) if trial.slope > 0 and after < before else IDENTITY


def _fit(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """Newton's method on the log loss."""
    design = np.stack([logits.astype(np.float64), np.ones(len(logits))], axis=1)
    weights = np.array([1.0, 0.0])
    for _ in range(_NEWTON_STEPS):
        p = _sigmoid(design @ weights)
        gradient = design.T @ (p - labels)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    return Calibration(float(weights[0]), float(weights[1]))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -60, 60)))
