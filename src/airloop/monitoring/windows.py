"""A use case's windows, judged: what drifted, what is missing, and how much was asked.

Belongs here: from hourly counts to a verdict on each window. Does not belong here: one feature's test
(`homogeneity`), the rule (`drift`), or where counts and verdicts are kept (`counts`, `findings`).

Windows that follow each other do not overlap, or they would agree by having the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Final, NamedTuple

import numpy as np

from airloop.intervals import Interval
from airloop.monitoring.counts import ANSWERED, FAILED, REQUESTS, Hours
from airloop.monitoring.drift import Found, alarmed, judge
from airloop.monitoring.homogeneity import FEWEST_DAYS, Comparison, compare, compare_with_before
from airloop.monitoring.profile import Profile, Profiled
from airloop.use_cases.monitoring_policy import Monitoring

ONE_WEEK: Final = timedelta(weeks=1)


class Feature(NamedTuple):
    """One feature of one window."""

    found: Found
    """Against the version's own window."""
    before: Found | None
    """Against the same window a week before; None where that one was not counted, or too quiet."""
    missing_share: float
    usual_missing_share: float


class Window(NamedTuple):
    """One window."""

    end: datetime
    requests: int
    """Answers that clients got."""
    failed: int
    """Versions that were asked and had no answer."""
    requests_before: int | None
    """The same a week before; None where it was not counted."""
    features: dict[str, Feature]
    """Empty for a window with too few requests to be judged."""
    alarmed: tuple[str, ...]
    """Features that drifted in it, and in enough of the windows before."""
    lost_traffic: bool


def needed(policy: Monitoring, span: Interval) -> Interval:
    """The hours whose counts the windows that end in `span` need."""
    earliest = max(policy.drift.windows * policy.window, policy.window + ONE_WEEK)
    return Interval(span.start - earliest, span.end)


def comparable(profile: Profile) -> list[Profiled]:
    """What has enough days to tell how much days differ; the rest is counted only."""
    return [one for one in (*profile.features, profile.prediction) if len(one.days) >= FEWEST_DAYS]


def judged(profile: Profile, hours: Hours, policy: Monitoring, ends: Sequence[datetime]) -> Iterator[Window]:
    """Each window of `policy.window` that ends at one of `ends`; not one with hours not counted."""
    reference = {one.cells.feature: one for one in comparable(profile)}
    days = policy.window // timedelta(days=1)

    def window(end: datetime) -> dict[str, np.ndarray] | None:
        return hours.window(Interval(end - policy.window, end))

    @cache
    def against_reference(end: datetime) -> dict[str, Found] | None:
        counts = window(end)
        if counts is None or counts[REQUESTS][ANSWERED] < policy.min_requests:
            return None
        compared = {name: compare(counts[name], one.array(), days) for name, one in reference.items()}
        return judge(compared, policy.drift)

    for end in ends:
        counts, before = window(end), window(end - ONE_WEEK)
        if counts is None:
            continue
        found = against_reference(end)
        requests = int(counts[REQUESTS][ANSWERED])
        requests_before = None if before is None else int(before[REQUESTS][ANSWERED])
        weekly: dict[str, Found] = {}
        if found is not None and before is not None:
            weekly = judge(_with_before(reference, counts, before, policy), policy.drift)
        past = [against_reference(end - n * policy.window) for n in range(policy.drift.windows)]
        yield Window(
            end=end,
            requests=requests,
            failed=int(counts[REQUESTS][FAILED]),
            requests_before=requests_before,
            features={
                name: Feature(
                    found=one,
                    before=weekly.get(name),
                    missing_share=_missing(counts[name]),
                    usual_missing_share=_missing(reference[name].array().sum(axis=0)),
                )
                for name, one in (found or {}).items()
            },
            alarmed=alarmed([w or {} for w in reversed(past)], policy.drift) if found else (),
            lost_traffic=(requests_before or 0) >= policy.min_requests
            and requests < policy.least_volume_share * (requests_before or 0),
        )


def _with_before(
    reference: dict[str, Profiled],
    counts: dict[str, np.ndarray],
    before: dict[str, np.ndarray],
    policy: Monitoring,
) -> dict[str, Comparison]:
    """The features that had enough values a week before; a new version had no answers then."""
    return {
        name: compare_with_before(counts[name], before[name], one.array(), policy.window // timedelta(days=1))
        for name, one in reference.items()
        if before[name].sum() >= policy.min_requests
    }


def _missing(counts: np.ndarray) -> float:
    """The share of the last cell, which is that of missing values."""
    return float(counts[-1] / max(counts.sum(), 1))
