"""Whether a window's values are spread over cells as the reference's days were: a test, and a size.

Belongs here: one feature's counts against the reference's, by day. Does not belong here: many features at
once, or when to alarm (`drift`).

Rows of a day are not independent: they share its weather, its schedule, its holidays. Pearson's chi-square
takes them for independent and finds drift on every day. Here its value is divided by what the reference's own
days have it at (a design effect: Rao and Scott, The Analysis of Categorical Data from Complex Sample Surveys,
JASA 1981), and its spread among those days gives the degrees of freedom (Satterthwaite, An Approximate
Distribution of Estimates of Variance Components, Biometrics 1946). A window is then as strange as its p value
says among days like the reference's.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from scipy import stats
from scipy.spatial.distance import jensenshannon

FEWEST_DAYS: Final = 14
"""Two of each weekday: fewer days do not tell how much days differ."""
LEAST_EXPECTED: Final = 5.0
"""Cells with a smaller expected count are counted together (Cochran, The chi-square Test of Goodness of Fit,
1952)."""


class Comparison(NamedTuple):
    """One feature of a window, compared with the reference."""

    p_value: float
    """How often a day like the reference's is at least as strange; 1 for a window without rows."""
    distance: float
    """Jensen-Shannon distance, base 2: 0 for equal shares, 1 for no cell in common."""
    rows: int
    design_effect: float
    """How much more the reference's days differ from each other than as many independent rows would."""


def compare(window: np.ndarray, reference: np.ndarray) -> Comparison:
    """Compare counts of a window, [cells], with those of the reference's days, [days, cells].

    Raises `ValueError` with fewer than `FEWEST_DAYS` days that have rows.
    """
    reference = reference[reference.sum(axis=1) > 0].astype(np.float64)
    if len(reference) < FEWEST_DAYS:
        raise ValueError(f"{len(reference)} days with rows in the reference, {FEWEST_DAYS} needed")
    rows = int(window.sum())
    if not rows:
        return Comparison(1.0, 0.0, 0, 1.0)
    distance = float(jensenshannon(window, reference.sum(axis=0), base=2))
    window, reference = _together(window.astype(np.float64), reference)
    cells = len(window)
    if cells < 2:
        return Comparison(1.0, distance, rows, 1.0)
    sizes, total = reference.sum(axis=1), reference.sum(axis=0)
    # Each day against the others, or it would be compared with itself.
    found = np.array([_pearson(day, total - day) for day in reference])
    excess = np.maximum(found / (cells - 1) - 1, 0.0)
    correlation = float(np.mean(excess / np.maximum(sizes - 1, 1)))
    scaled = found / (1 + (sizes - 1) * correlation)
    mean, variance = float(scaled.mean()), float(scaled.var(ddof=1))
    effect = 1 + (rows - 1) * correlation
    asked = _pearson(window, total) / effect
    if variance <= 0 or mean <= 0:
        return Comparison(float(stats.chi2.sf(asked, cells - 1)), distance, rows, effect)
    scale, freedom = variance / (2 * mean), 2 * mean**2 / variance
    return Comparison(float(stats.chi2.sf(asked / scale, freedom)), distance, rows, effect)


def _pearson(counts: np.ndarray, others: np.ndarray) -> float:
    """Pearson's chi-square of `counts` against the shares that `others` and they together have."""
    both = counts + others
    expected = both / both.sum() * counts.sum()
    used = expected > 0
    # Of a sample from the same source; the reference's own sampling error counts too.
    finite = 1 + counts.sum() / max(others.sum(), 1)
    return float(((counts - expected)[used] ** 2 / expected[used]).sum() * finite)


def _together(window: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same counts, with cells of which a window expects too little put together."""
    shares = (reference.sum(axis=0) + window) / (reference.sum() + window.sum())
    small = shares * min(window.sum(), float(np.median(reference.sum(axis=1)))) < LEAST_EXPECTED
    if small.sum() < 2:
        return window, reference
    rest = reference[:, small].sum(axis=1, keepdims=True)
    return (
        np.append(window[~small], window[small].sum()),
        np.concatenate([reference[:, ~small], rest], axis=1),
    )
