"""Which features have drifted in a window, and when that is an alarm.

Belongs here: many features at once, and windows one after the other. Does not belong here: one feature's test
(`homogeneity`), where counts come from, or who is told.

Three things must come together. Among all features of a window the share of false discoveries is limited
(Benjamini and Hochberg, Controlling the False Discovery Rate, JRSS B 1995): with fifty features, two or three
are below 0.05 every hour. The distance must be large enough to matter: of a hundred million rows every
difference is certain, and most mean nothing. And it must last: N of the last M windows, which do not overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy.stats import false_discovery_control

from airloop.monitoring.homogeneity import Comparison
from airloop.use_cases.monitoring_policy import DriftRule


class Found(NamedTuple):
    """One feature of one window."""

    comparison: Comparison
    adjusted_p_value: float
    """Below the false-discovery rate: a discovery (Benjamini and Hochberg)."""
    drifted: bool


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
    """The features that drifted in the newest of `windows` (oldest first) and in enough of those before.

    A window that was not measured is not in `windows`, and agrees with nothing.
    """
    names = sorted(windows[-1]) if windows else []
    return tuple(
        name for name in names if rule.met([name in window and window[name].drifted for window in windows])
    )
