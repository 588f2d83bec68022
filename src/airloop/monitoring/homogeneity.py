"""Whether a window's values are spread over cells as the reference's days were: a test, and a size.

Belongs here: one feature's counts against the reference's, by day. Does not belong here: many features at
once, or when to alarm (`drift`).

Rows of a day are not independent: they share its weather, its schedule, its holidays. Pearson's chi-square
takes them for independent and finds drift on every day. Here its value is divided by what the reference's own
days have it at (a design effect: Rao and Scott, The Analysis of Categorical Data from Complex Sample Surveys,
JASA 1981). A window is then as strange as the share of those days that are at least as strange says, whatever
their distribution; beyond the strangest of them, as the chi-square distribution says that has their mean and
spread (Satterthwaite, An Approximate Distribution of Estimates of Variance Components, Biometrics 1946).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from scipy import stats
from scipy.spatial.distance import jensenshannon

FEWEST_DAYS: Final = 14
"""Two of each weekday: fewer days do not tell how much days differ."""
STUCK_SHARE: Final = 0.95
"""Of a window's rows in one cell, from which on a feature may be stuck."""
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


def compare(window: np.ndarray, reference: np.ndarray, days: int = 1) -> Comparison:
    """Compare counts of a window of `days` days, [cells], with those of the reference's days, [days, cells].

    Raises `ValueError` with fewer than `FEWEST_DAYS` days that have rows.
    """
    reference = _with_rows(reference)
    return _compare(window, reference.sum(axis=0), reference, days, len(reference))


def compare_with_before(
    window: np.ndarray, before: np.ndarray, reference: np.ndarray, days: int = 1
) -> Comparison:
    """Compare counts of a window of `days` days, [cells], with those of an equally long one before it.

    How much days differ from each other comes from the reference's, [days, cells]. Raises `ValueError` with
    fewer than `FEWEST_DAYS` days that have rows.
    """
    return _compare(window, before, _with_rows(reference), days, days)


def _with_rows(reference: np.ndarray) -> np.ndarray:
    found: np.ndarray = reference[reference.sum(axis=1) > 0].astype(np.float64)
    if len(found) < FEWEST_DAYS:
        raise ValueError(f"{len(found)} days with rows in the reference, {FEWEST_DAYS} needed")
    return found


def _compare(
    window: np.ndarray, others: np.ndarray, reference: np.ndarray, window_days: int, other_days: int
) -> Comparison:
    rows, other_rows = int(window.sum()), int(others.sum())
    if not rows or not other_rows:
        return Comparison(1.0, 0.0, rows, 1.0)
    distance = float(jensenshannon(window, others, base=2))
    counts = np.vstack([window, others]).astype(np.float64)
    counts, reference = _together(counts, reference)
    cells = reference.shape[1]
    if cells < 2:
        return Comparison(1.0, distance, rows, 1.0)
    sizes, total = reference.sum(axis=1), reference.sum(axis=0)
    # Each day against the others, or it would be compared with itself.
    found = np.array([_pearson(day, total - day) for day in reference])
    excess = np.maximum(found / (cells - 1) - 1, 0.0)
    correlation = float(np.mean(excess / np.maximum(sizes - 1, 1)))
    scaled = found / (1 + (sizes - 1) * correlation)
    mean, variance = float(scaled.mean()), float(scaled.var(ddof=1))
    # The variance of the difference of two shares, beside that of as many independent rows: rows of one day
    # have `correlation`, those of two have none.
    shared = (rows / window_days - 1) / rows + (other_rows / other_days - 1) / other_rows
    effect = 1 + correlation * max(shared, 0.0) / (1 / rows + 1 / other_rows)
    asked = _pearson(*counts) / effect
    scale, freedom = (variance / (2 * mean), 2 * mean**2 / variance) if variance > 0 else (1.0, cells - 1)
    as_strange = int((scaled >= asked).sum())
    p_value = (1 + as_strange) / (len(scaled) + 1)
    if not as_strange:
        p_value = min(p_value, float(stats.chi2.sf(asked / scale, freedom)))
    if _is_stuck(counts[0], reference):
        p_value = min(p_value, 1 / (len(scaled) + 1))
    return Comparison(p_value, distance, rows, effect)


def _is_stuck(window: np.ndarray, reference: np.ndarray) -> bool:
    """Whether nearly all of a window's rows are in one cell, and on no day of the reference so many were.

    A number that is always 0 need not be farther off than a storm: that it does not vary is what is strange.
    """
    cell = int(window.argmax())
    share = window[cell] / window.sum()
    return bool(share >= STUCK_SHARE and share > (reference[:, cell] / reference.sum(axis=1)).max())


def _pearson(counts: np.ndarray, others: np.ndarray) -> float:
    """Pearson's chi-square of `counts` against the shares that `others` and they together have."""
    both = counts + others
    expected = both / both.sum() * counts.sum()
    used = expected > 0
    # Of a sample from the same source; the reference's own sampling error counts too.
    finite = 1 + counts.sum() / max(others.sum(), 1)
    return float(((counts - expected)[used] ** 2 / expected[used]).sum() * finite)


def _together(counts: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same counts, [2, cells] and [days, cells]; cells too small to count are put together."""
    shares = (reference.sum(axis=0) + counts[0]) / (reference.sum() + counts[0].sum())
    small = shares * min(*counts.sum(axis=1), float(np.median(reference.sum(axis=1)))) < LEAST_EXPECTED
    if small.sum() < 2:
        return counts, reference

    def merged(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([rows[:, ~small], rows[:, small].sum(axis=1, keepdims=True)], axis=1)

    return merged(counts), merged(reference)
