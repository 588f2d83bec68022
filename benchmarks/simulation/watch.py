"""One champion, watched from the moment that it serves on: drift of what is asked, decay of what it answers.

Belongs here: from rows to the causes that speak for a training on a day, by monitoring's own cores
(`windows.judged`, `decay.quality`). Does not belong here: what follows from causes
(`airloop.retraining.decision`).

What the jobs do beside is left out, for it would take hours: a window is a UTC day and is judged once, as it
ends, where the DAG judges the last 24 hours every hour; nothing is kept in tables; every request has an
answer, and in the end a label (cancelled flights are not among the rows). A day's quality is judged when the
last of its labels is in, where the job judges it as soon as four fifths of them are.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import numpy as np

from airloop.intervals import ONE_DAY, ONE_HOUR, Interval
from airloop.monitoring.counts import ANSWERED, REQUESTS, Hours
from airloop.monitoring.decay import Quality, decay_alarmed, quality
from airloop.monitoring.scores.binary import BinaryScoring
from airloop.monitoring.windows import Window, judged, needed
from airloop.retraining.causes import Cause
from airloop.use_cases.retraining_policy import DECAY, DRIFT
from airloop.wording import listed
from benchmarks.simulation.candidates import Candidate
from benchmarks.simulation.year import EPOCH, Year

COUNTED_AT_ONCE: Final = 14
"""Days whose windows are counted in one go; what comes later is not counted before."""


class Look(NamedTuple):
    """What monitoring says on one day."""

    causes: tuple[Cause, ...]
    drifted: tuple[str, ...]
    """Features under alarm."""
    quality: Quality | None
    """Of the newest day whose labels are in."""


class Watch:
    """One champion."""

    def __init__(self, year: Year, champion: Candidate, since: datetime) -> None:
        self._year, self._champion, self._since = year, champion, since
        self._windows = self._judged()
        self._days: list[Quality] = []

    def look(self, at: datetime) -> Look:
        """What is found at `at`, some hours after a midnight; to be asked day by day."""
        midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
        causes, drifted = [], ()
        if midnight > self._since and (window := next(self._windows, None)) is not None:
            assert window.end == midnight, (window.end, midnight)
            drifted = window.alarmed
            if drifted:
                causes.append(Cause(DRIFT, f"drift of {listed(list(drifted))}"))
        newest = self._quality(at, midnight)
        if (
            newest is not None
            and newest.judged
            and decay_alarmed(self._days, self._year.spec.monitoring.decay)
        ):
            causes.append(
                Cause(
                    DECAY,
                    listed(
                        [
                            f"{one.name} {one.value:.3f} (usual {newest.usual[one.name]:.3f})"
                            for one in newest.figures.tested
                        ]
                    ),
                )
            )
        return Look(tuple(causes), drifted, newest)

    def _quality(self, at: datetime, midnight: datetime) -> Quality | None:
        spec = self._year.spec
        due = spec.prediction_lead + spec.label.matures_after
        end = midnight
        while end + due > at:
            end -= ONE_DAY
        start = max(end - ONE_DAY, self._since)
        if start >= end:
            return None
        rows = self._year.known(Interval(start, end), at)
        labels = self._year.rows.labels[rows].astype(float)
        usual = [day.figures for day in self._champion.profile.test_days]
        scoring = BinaryScoring()
        figures = scoring.figures(scoring.scores_of(self._champion.of(rows), labels))
        found = quality(figures, usual, spec.monitoring.decay)
        if found.judged:
            self._days.append(found)
        return found

    def _judged(self) -> Iterator[Window]:
        start = self._since.replace(hour=0, minute=0, second=0, microsecond=0)
        last = EPOCH + timedelta(days=int(self._year.days(slice(-1, None))[0]) + 1)
        policy = self._year.spec.monitoring
        while start < last:
            end = min(start + COUNTED_AT_ONCE * ONE_DAY, last)
            span = needed(policy, Interval(start, end))
            ends = [start + (day + 1) * ONE_DAY for day in range((end - start).days)]
            yield from judged(self._champion.profile, self.counts(span), policy, ends)
            start = end

    def counts(self, span: Interval) -> Hours:
        """The hours of `span`: features of all requests, predictions of this version's answers alone."""
        profile = self._champion.profile
        rows = self._year.numbers(span)
        base = (span.start - EPOCH) // ONE_HOUR

        def by_hour(groups: np.ndarray, counts: np.ndarray) -> np.ndarray:
            every = np.zeros((span.hours, counts.shape[1]), np.int64)
            every[groups - base] = counts
            return every

        values, hours = self._year.watched(rows), self._year.hours(rows)
        found = {
            one.cells.feature: by_hour(*one.cells.count_by(hours, values[one.cells.feature]))
            for one in profile.features
        }
        own = slice(max(rows.start, self._year.numbers(Interval(self._since, span.end)).start), rows.stop)
        cells = profile.prediction.cells
        found[cells.feature] = by_hour(
            *cells.count_by(self._year.hours(own), self._champion.of(own).astype(np.float64))
        )
        requests = np.zeros((span.hours, 2), np.int64)
        requests[:, ANSWERED] = np.bincount(hours - base, minlength=span.hours)
        return Hours(span.start, np.ones(span.hours, bool), found | {REQUESTS: requests})
