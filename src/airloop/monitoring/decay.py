"""Whether a champion answers worse than it did on its test days.

Belongs here: one window's quality against the test days', and when that is an alarm. Does not belong here:
the sums (`scores`), or drift of what is asked (`drift`).

Figures are compared that do not move with how hard a day was (`Figures.tested`). Each varies as the test
days' do, and by chance with the window's own rows; the test is one-sided (Student's t over the test days),
for several figures at their share of the significance (after Bonferroni). What is lost must be a stated share
of what is usual, in enough windows that do not overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from airloop.monitoring.homogeneity import FEWEST_DAYS
from airloop.monitoring.scores import Figures, Tested
from airloop.use_cases.monitoring_policy import DecayRule


class Quality(NamedTuple):
    """One window's quality."""

    figures: Figures
    usual: dict[str, float]
    """Means of the test days, by the figure's name; empty with too few of them, or before they were kept."""
    p_value: float | None
    """How often a day like the test days is so bad; None for a window that cannot be judged."""
    decayed: bool

    @property
    def judged(self) -> bool:
        """Whether enough of its labels were in."""
        return self.p_value is not None


def quality(window: Figures, test_days: Sequence[Figures], rule: DecayRule) -> Quality:
    """`window` against `test_days`; without a verdict where too few labels, or days, are known."""
    days = [day.tested for day in test_days if day.tested]
    if len(days) < FEWEST_DAYS:
        return Quality(window, {}, None, False)
    # A figure's days beside one another.
    by_figure = {figures[0].name: figures for figures in zip(*days, strict=True)}
    usual = {name: float(np.mean([one.value for one in figures])) for name, figures in by_figure.items()}
    if not window.tested or window.labelled < rule.min_labels or window.label_share < rule.least_label_share:
        return Quality(window, usual, None, False)
    p_values = {one.name: _p_value(one, by_figure[one.name]) for one in window.tested}
    decayed = any(
        # What never was any gain cannot be lost.
        (worth := usual[one.name] - one.worthless) > 0
        and len(p_values) * p_values[one.name] <= rule.significance
        and usual[one.name] - one.value >= rule.least_lost_share * worth
        for one in window.tested
    )
    return Quality(window, usual, min(1.0, len(p_values) * min(p_values.values())), decayed)


def _p_value(window: Tested, days: Sequence[Tested]) -> float:
    """How often a day like `days` has so small a figure."""
    figures = np.array([day.value for day in days])
    observed = float(figures.var(ddof=1))
    # Of the days' variance, a part is chance with their rows; the window has its own in its place.
    between = max(observed - float(np.mean([day.variance for day in days])), 0.0)
    variance = between + window.variance + observed / len(days)
    return float(stats.t.cdf((window.value - figures.mean()) / np.sqrt(variance), len(days) - 1))


def decay_alarmed(windows: Sequence[Quality], rule: DecayRule) -> bool:
    """Whether the newest of `windows` (oldest first) decayed, and enough of those before."""
    return rule.met([one.decayed for one in windows])
