"""The log loss of a single answer, as training, rollouts and monitoring all count it.

Belongs here: that one formula. Does not belong here: means, ranges or limits.
"""

from __future__ import annotations

from typing import Final

import numpy as np

_SMALLEST: Final = 1e-7


def row_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Negative log likelihood of each row in nats; probabilities of 0 and 1 count as 1e-7 away from it."""
    p = np.clip(probabilities.astype(np.float64), _SMALLEST, 1 - _SMALLEST)
    losses: np.ndarray = -np.where(labels == 1, np.log(p), np.log1p(-p))
    return losses
