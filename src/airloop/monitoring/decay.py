"""Whether a champion answers worse than it did on its test days.

Belongs here: one window's quality against the test days', and when that is an alarm. Does not belong here:
the sums (`scores`), or drift of what is asked (`drift`).

Two figures are compared. The *gain* is by how much the log loss lies below that of a base rate, told for the
window itself: log loss alone moves with the share of positives, and a stormy day has a higher one with any
model. *ROC AUC* does not move with the level of the answers at all: it shows sooner that a model no longer
knows what is what. Each varies as the test days' do, and by chance with the window's own
rows; the test is one-sided (Student's t over the test days), for two figures at half the significance (after
Bonferroni). What is lost must be a stated share of what is usual, in enough windows that do not overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from airloop.monitoring.homogeneity import FEWEST_DAYS
from airloop.monitoring.scores import Figures
from airloop.use_cases.monitoring_policy import DecayRule


class Quality(NamedTuple):
    """One window's quality."""

    figures: Figures
    usual_gain: float | None
    """Mean of the test days; None with too few of them, or before they were kept."""
    usual_roc_auc: float | None
    p_value: float | None
    """How often a day like the test days is so bad; None for a window that cannot be judged."""
    decayed: bool

    @property
    def judged(self) -> bool:
        """Whether enough of its labels were in."""
        return self.p_value is not None


def quality(window: Figures, test_days: Sequence[Figures], rule: DecayRule) -> Quality:
    """`window` against `test_days`; without a verdict where too few labels, or days, are known."""
    days = [day for day in test_days if _is_whole(day)]
    if len(days) < FEWEST_DAYS:
        return Quality(window, None, None, None, False)
    usual_gain, usual_auc = (float(np.mean([pick(day)[0] for day in days])) for pick in (_gain, _roc_auc))
    if (
        not _is_whole(window)
        or window.labelled < rule.min_labels
        or window.label_share < rule.least_label_share
    ):
        return Quality(window, usual_gain, usual_auc, None, False)
    tests = [
        (_p_value(_gain(window), [_gain(day) for day in days]), usual_gain),
        (_p_value(_roc_auc(window), [_roc_auc(day) for day in days]), usual_auc - 0.5),
    ]
    lost = (usual_gain - _gain(window)[0], usual_auc - _roc_auc(window)[0])
    decayed = any(
        # What never was any gain cannot be lost.
        usual > 0 and len(tests) * p <= rule.significance and gone >= rule.least_lost_share * usual
        for (p, usual), gone in zip(tests, lost, strict=True)
    )
    return Quality(window, usual_gain, usual_auc, min(1.0, len(tests) * min(p for p, _ in tests)), decayed)


def _is_whole(figures: Figures) -> bool:
    return figures.gain is not None and figures.gain_deviation is not None and figures.roc_auc is not None


def _gain(figures: Figures) -> tuple[float, float]:
    """The gain, and its variance by chance."""
    assert figures.gain is not None
    assert figures.gain_deviation is not None
    return figures.gain, figures.gain_deviation**2 / figures.labelled


def _roc_auc(figures: Figures) -> tuple[float, float]:
    """ROC AUC, and its variance by chance (Hanley and McNeil, The Meaning and Use of the Area under a ROC
    Curve, Radiology 1982)."""
    assert figures.roc_auc is not None
    area, positives = figures.roc_auc, figures.positives
    negatives = figures.labelled - positives
    two_positives, two_negatives = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area)
    variance += (positives - 1) * (two_positives - area**2) + (negatives - 1) * (two_negatives - area**2)
    return area, max(variance, 0.0) / (positives * negatives)


def _p_value(window: tuple[float, float], days: Sequence[tuple[float, float]]) -> float:
    """How often a day like `days` has so small a figure, from figures and their variances by chance."""
    figures = np.array([figure for figure, _ in days])
    observed = float(figures.var(ddof=1))
    # Of the days' variance, a part is chance with their rows; the window has its own in its place.
    between = max(observed - float(np.mean([chance for _, chance in days])), 0.0)
    variance = between + window[1] + observed / len(days)
    return float(stats.t.cdf((window[0] - figures.mean()) / np.sqrt(variance), len(days) - 1))


def decay_alarmed(windows: Sequence[Quality], rule: DecayRule) -> bool:
    """Whether the newest of `windows` (oldest first) decayed, and enough of those before."""
    return rule.met([one.decayed for one in windows])
