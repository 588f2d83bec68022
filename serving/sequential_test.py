"""A test of the mean of differences that may be looked at at any time, and as often as one likes.

Belongs here: the confidence sequence. Does not belong here: what differs (`serving.analysis`).

An interval for a fixed sample size is wrong about the mean sooner or later when it is computed again and
again as data come in. A confidence sequence is right at all times together with the stated probability. This
is the asymptotic one of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Time-uniform central limit theory
and asymptotic confidence sequences, Annals of Statistics 52 (2024), theorem 2.2: after n differences with
mean m and standard deviation s,

    m +- s * sqrt((2 * (n * rho**2 + 1) / (n**2 * rho**2)) * log(sqrt(n * rho**2 + 1) / alpha))

It assumes no distribution, as the central limit theorem does not, and like that it holds for large n: hence
a minimum sample.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

ALPHA: Final = 0.05
"""How often, in rollouts of candidates that are no worse, the sequence ever excludes the truth."""
TIGHTEST_AT: Final = 2000
"""The number of differences at which the sequence is tightest, compared with its width at others."""


class Interval(NamedTuple):
    """Where the mean is."""

    mean: float
    low: float
    high: float
    count: int


def rho_for(count: int, alpha: float = ALPHA) -> float:
    """The parameter that makes the sequence about tightest after `count` differences (appendix B.2 there)."""
    return math.sqrt((-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1) / count)


def confidence_sequence(
    differences: np.ndarray, *, alpha: float = ALPHA, tightest_at: int = TIGHTEST_AT
) -> Interval:
    """The mean of `differences`, [n], and bounds that hold at all n together; infinite below two."""
    count = len(differences)
    if count < 2:
        return Interval(math.nan, -math.inf, math.inf, count)
    mean, deviation = float(differences.mean()), float(differences.std(ddof=1))
    scaled = count * rho_for(tightest_at, alpha) ** 2
    width = deviation * math.sqrt(
        2 * (scaled + 1) / (count * scaled) * math.log(math.sqrt(scaled + 1) / alpha)
    )
    return Interval(mean, mean - width, mean + width, count)
