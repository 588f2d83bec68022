"""A year of labelled flights in the order of their predictions, and what of them is known at a moment.

Belongs here: the rows, and cutting them at a moment. Does not belong here: what is made of them
(`candidates`, `watch`), or the clock (`replay`).

Everything of later moments lies in the same arrays. So that nothing of it can be learnt from, whatever leaves
here for a training or a judgement is checked: a label is known `matures_after` after its prediction and the
lead before the event, and not a second sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np

from airloop.intervals import Interval
from airloop.monitoring.monitored import watched_values
from airloop.references import TrainingSet
from airloop.settings import Settings
from airloop.training.examples import Examples
from airloop.training.staging import Staged, stage
from airloop.use_cases.spec import UseCase
from spark_jobs.training_set import windows

MICROS: Final = timedelta(microseconds=1)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class FutureError(RuntimeError):
    """Something was asked for that is not known yet."""


@dataclass(frozen=True)
class Year:
    """Rows in order of prediction time."""

    spec: UseCase
    rows: Staged

    def numbers(self, span: Interval) -> slice:
        """The rows whose predictions are made in `span`."""
        first, last = np.searchsorted(self.rows.times, [(moment - EPOCH) // MICROS for moment in span])
        return slice(int(first), int(last))

    def known(self, span: Interval, at: datetime) -> slice:
        """The rows of `span`; raises `FutureError` where the label of one is not known at `at`."""
        rows = self.numbers(span)
        if rows.stop > rows.start:
            last = EPOCH + int(self.rows.times[rows.stop - 1]) * MICROS
            if last + self.spec.label.matures_after > at:
                raise FutureError(f"at {at:%Y-%m-%d %H:%M} the label of {last:%Y-%m-%d %H:%M} is not known")
        return rows

    def splits(self, as_of: datetime) -> dict[str, slice]:
        """The windows of a training set as of `as_of`; the first begins with the year at the earliest."""
        spans = windows(self.spec.training, self.spec, as_of)
        return {name: self.known(span, as_of) for name, span in spans.items()}

    def staged(self, rows: slice) -> Staged:
        """Those rows as a split of their own: its words are those that it has."""
        columns, words = {}, {}
        for name, values in self.rows.columns.items():
            found = values[rows]
            if name in self.rows.words:
                there, places = np.unique(found, return_inverse=True)
                words[name], found = self.rows.words[name][there], places.astype(np.int32)
            columns[name] = found
        outcomes = self.rows.outcomes
        return Staged(
            columns=columns,
            words=words,
            labels=self.rows.labels[rows],
            times=self.rows.times[rows],
            outcomes=None if outcomes is None else outcomes[rows],
        )

    def examples(self, rows: slice) -> Examples:
        """Those rows, as a model is asked."""
        return self.rows.at(rows)

    def watched(self, rows: slice) -> dict[str, np.ndarray]:
        """The watched features of those rows."""
        return watched_values(self.spec, self.examples(rows).columns)

    def days(self, rows: slice) -> np.ndarray:
        """The UTC day of each row's prediction, since the epoch, [rows]."""
        days: np.ndarray = self.rows.times[rows] // (86_400_000_000)
        return days

    def hours(self, rows: slice) -> np.ndarray:
        """The UTC hour of each row's prediction, since the epoch, [rows]."""
        hours: np.ndarray = self.rows.times[rows] // 3_600_000_000
        return hours


def whole_year(settings: Settings, spec: UseCase, training_set: TrainingSet, scratch: Path) -> Year:
    """All rows of `training_set`, whatever split it has them in; files go to `scratch`."""
    splits = ("train", "validation", "test")
    return Year(spec, _joined([stage(settings, spec, training_set, name, scratch / name) for name in splits]))


def _joined(parts: Sequence[Staged]) -> Staged:
    """One after the other."""
    columns, words = {}, {}
    for name in parts[0].columns:
        if name not in parts[0].words:
            columns[name] = np.concatenate([part.columns[name] for part in parts])
            continue
        every = np.unique(np.concatenate([part.words[name].astype(str) for part in parts]))
        places = [np.searchsorted(every, part.words[name].astype(str)) for part in parts]
        columns[name] = np.concatenate(
            [place[part.columns[name]] for place, part in zip(places, parts, strict=True)]
        ).astype(np.int32)
        words[name] = every.astype(object)
    outcomes = [part.outcomes for part in parts if part.outcomes is not None]
    return Staged(
        columns=columns,
        words=words,
        labels=np.concatenate([part.labels for part in parts]),
        times=np.concatenate([part.times for part in parts]),
        outcomes=np.concatenate(outcomes) if outcomes else None,
    )
