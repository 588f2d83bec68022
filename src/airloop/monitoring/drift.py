"""Which features have drifted in a window, and when that is an alarm.

Belongs here: many features at once, and windows one after the other. Does not belong here: one feature's test
(`homogeneity`), where counts come from, or who is told.

Three things must come together. The distance must be large enough to matter: of a hundred million rows any
difference is certain, and most mean nothing. It must last: of the last M windows, which do not overlap, the
newest and N - 1 others are taken together, and the largest of their p values says how often that many are as
small by chance (after Wilkinson, A Statistical Consideration in Psychological Research, Psychological
Bulletin 1951): what each alone could be by chance, two of them hardly are. And among all features the share
of false discoveries is limited (Benjamini and Hochberg, Controlling the False Discovery Rate, JRSS B 1995):
with fifty features, two or three are below 0.05 every hour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy.stats import binom, false_discovery_control

from airloop.monitoring.homogeneity import Comparison
from airloop.use_cases.monitoring_policy import DriftRule


class Found(NamedTuple):
    """One feature of one window."""

    comparison: Comparison
    adjusted_p_value: float
    """Below the false-discovery rate: a discovery (Benjamini and Hochberg)."""
    drifted: bool
    """In this window alone."""


def judge(compared: Mapping[str, Comparison], rule: DriftRule) -> dict[str, Found]:
    """What `rule` makes of each feature of one window."""
    if not compared:
        return {}
    adjusted = false_discovery_control([one.p_value for one in compared.values()], method="bh")
    return {
        name: Found(
            one,
            float(value),
            bool(value <= rule.false_discovery_rate and one.distance >= rule.least_distance),
        )
        for (name, one), value in zip(compared.items(), adjusted, strict=True)
    }


def alarmed(windows: Sequence[Mapping[str, Found]], rule: DriftRule) -> tuple[str, ...]:
    """The features that are far enough off in the newest of `windows` (oldest first), and in enough of those
    before, for it not to be chance among all features.

    A window that was not measured is empty, and agrees with nothing.
    """
    last = windows[-rule.windows :]
    if not last or not last[-1]:
        return ()
    names = sorted(last[-1])
    p_values = [
        _together([window[name].comparison for window in last if name in window], rule) for name in names
    ]
    adjusted = false_discovery_control(p_values, method="bh")
    return tuple(
        name for name, value in zip(names, adjusted, strict=True) if value <= rule.false_discovery_rate
    )


def _together(comparisons: Sequence[Comparison], rule: DriftRule) -> float:
    """How often as many windows that are alike are as far off by chance as those that agree, of which the
    newest must be one."""
    found = [one.p_value if one.distance >= rule.least_distance else 1.0 for one in comparisons]
    if len(found) < rule.agreeing:
        return 1.0
    *others, newest = found
    least = max([newest, *sorted(others)[: rule.agreeing - 1]])
    return least * float(binom.sf(rule.agreeing - 2, len(others), least))
