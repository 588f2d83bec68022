"""Job: the folds of a training set, in order of time.

    python -m airloop.training.folds --use-case NAME --training-set JSON [--parameters JSON] [--result FILE]

Belongs here: which days a fold learns from and is measured on. Does not belong here: training on it (`fold`).

The window grows: each fold is measured on the `fold_days` after the ones before it, the last one on the end
of the validation split, and learns from everything before. Of that, the last `fold_days` say when to stop, as
a candidate's validation split does: the days that it is measured on have no say. The test split is never
read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airloop.errors import HistoryError, SpecError
from airloop.jobs import run_job
from airloop.references import Folds, TrainingSet, Tuned
from airloop.settings import Settings
from airloop.training.arguments import training_parser, training_set_of, tuned_of
from airloop.training.examples import PREDICTION_TIME, Split, scan_split
from airloop.training.staging import MICROS_PER_DAY, Staged
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from airloop.use_cases.training_policy import CrossValidation

SPLITS: Final[tuple[Split, ...]] = ("train", "validation")
_MICROS: Final = np.timedelta64(1, "us")


class Days(NamedTuple):
    """The days of one fold, numbered from 1970-01-01."""

    stopping: int
    """First day that says when to stop; all earlier ones are learnt from."""
    start: int
    """First day that the fold is measured on."""
    end: int
    """Day after the last one."""


class Cut(NamedTuple):
    """A fold's rows, as places in rows that are in order of time."""

    train: slice
    stopping: slice
    measured: slice


def folds_of(policy: CrossValidation, first: int, end: int) -> list[Days]:
    """The folds over the days from `first` to before `end`; raises `HistoryError` when they are too few."""
    found = [
        Days(start - policy.fold_days, start, start + policy.fold_days)
        for start in range(end - policy.folds * policy.fold_days, end, policy.fold_days)
    ]
    if found[0].stopping <= first:
        raise HistoryError(
            expected=f"more than {policy.held_out_days} days for {policy.folds} folds of {policy.fold_days}",
            found=f"{end - first} days in the train and validation splits",
            next_step="build a training set over longer windows, or ask the spec for fewer or shorter folds",
        )
    return found


def cut(days: Days, times: np.ndarray, matures_after: np.timedelta64) -> Cut:
    """Which of the rows at `times` (rising microseconds) a fold gets.

    What is learnt from had its label when the fold's first day began: rows of the last `matures_after` before
    it are left out.
    """
    start = days.start * MICROS_PER_DAY
    known_until = start - int(matures_after / _MICROS)
    places = (days.stopping * MICROS_PER_DAY, known_until, start, days.end * MICROS_PER_DAY)
    stopping, known, first, end = np.searchsorted(times, places).tolist()
    return Cut(slice(0, min(stopping, known)), slice(min(stopping, known), known), slice(first, end))


def rows_of(staged: Staged, rows: slice) -> Staged:
    """Neighbouring rows of `staged`, still on disk."""
    return Staged(
        columns={name: values[rows] for name, values in staged.columns.items()},
        words=staged.words,
        labels=staged.labels[rows],
        times=staged.times[rows],
        outcomes=None if staged.outcomes is None else staged.outcomes[rows],
    )


def policy_of(spec: UseCase) -> CrossValidation:
    """How `spec` is cross-validated; raises `SpecError` when it does not say."""
    if spec.training.cross_validation is None:
        raise SpecError(
            expected=f"training.cross_validation in the spec of {spec.name}",
            found="none",
            next_step="say how many folds of how many days, or train without cross-validation",
        )
    return spec.training.cross_validation


def list_folds(
    settings: Settings, spec: UseCase, training_set: TrainingSet, tuned: Tuned | None = None
) -> Folds:
    """The folds of `training_set`, with the parameters that all of them get.

    Raises `HistoryError` when its days are too few for the spec's folds.
    """
    spans = list(_spans(settings, training_set))
    first, last = min(low for low, _ in spans), max(high for _, high in spans)
    found = folds_of(policy_of(spec), first // MICROS_PER_DAY, last // MICROS_PER_DAY + 1)
    return Folds(training_set=training_set.tag, folds=tuple(range(len(found))), tuned=tuned)


def _spans(settings: Settings, training_set: TrainingSet) -> Iterator[tuple[int, int]]:
    """The earliest and the latest prediction time of each batch, in microseconds."""
    rows = 0
    for split in SPLITS:
        for batch in scan_split(settings, training_set, (PREDICTION_TIME,), split):
            if batch.num_rows:
                rows += batch.num_rows
                times = batch[PREDICTION_TIME].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
                ends = pc.min_max(times).as_py()
                yield ends["min"], ends["max"]
    if not rows:
        raise HistoryError(
            expected=f"rows in the train and validation splits of {training_set.tag}",
            found="none",
            next_step="build the training set again (spark_jobs.training_set)",
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = training_parser("List the folds of a training set.", parameters=True)

    def work(arguments: argparse.Namespace, settings: Settings) -> Folds:
        return list_folds(
            settings,
            use_case(arguments.use_case),
            training_set_of(arguments),
            tuned_of(arguments),
        )

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
