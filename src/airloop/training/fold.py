"""Job: one fold of a cross-validation: train on what is before its days, and measure on them.

    python -m airloop.training.fold --use-case NAME --training-set JSON --fold N [--parameters JSON]
        [--code-commit SHA] [--result FILE]

Belongs here: what a fold's training and its measures are made of. Does not belong here: which rows those are
(`folds`), or the training itself (`learning`). The test split is never read. An interrupted fold goes on from
its checkpoint; the model is thrown away.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from airloop.errors import HistoryError, SpecError
from airloop.jobs import run_job
from airloop.references import FoldMeasured, TrainingSet, Tuned
from airloop.settings import Settings
from airloop.training import fitting, folds, learning
from airloop.training.arguments import commit_of, training_parser, training_set_of, tuned_of
from airloop.training.checkpoints import Checkpoints
from airloop.training.devices import TF_CONFIG, open_devices
from airloop.training.encoding import encode
from airloop.training.examples import NEXT
from airloop.training.measures import measure
from airloop.training.provenance import is_reproducible
from airloop.training.staging import CHUNK_ROWS, MICROS_PER_DAY, Staged
from airloop.training.tracking import params_of_run, tags_of_run
from airloop.training.train import stop_on_sigterm
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from airloop.work_folders import work_folder

log = logging.getLogger(__name__)


def measure_fold(
    settings: Settings,
    spec: UseCase,
    training_set: TrainingSet,
    number: int,
    commit: str,
    *,
    tuned: Tuned | None = None,
    stop: threading.Event | None = None,
) -> FoldMeasured:
    """Train fold `number`, with the parameters of `tuned` if given, and measure it.

    Raises `HistoryError` when the training set has too few days or is not what its reference says,
    `SpecError` for a number that is no fold's and where several processes are to share a training.
    """
    policy = folds.policy_of(spec)
    if not 0 <= number < policy.folds:
        raise SpecError(
            expected=f"a fold from 0 to {policy.folds - 1}",
            found=f"--fold {number}",
            next_step="pass one of those that airloop.training.folds lists",
        )
    fitting.make_deterministic(spec.training.seed, settings.training_threads)
    devices = open_devices(os.environ)
    if devices.workers > 1:
        raise SpecError(
            expected="a fold to have one process",
            found=f"{devices.workers} workers in {TF_CONFIG}",
            next_step=f"start folds without {TF_CONFIG}; several of them can run at once",
        )
    spec = learning.with_parameters(spec, tuned)
    tags = {**tags_of_run(spec, training_set, commit), "fold": str(number)}
    checkpoints = Checkpoints(
        learning.checkpoint_folder(settings, spec, tags, params_of_run(spec, training_set, tuned))
    )
    if not is_reproducible(commit):
        checkpoints.remove()
    job = learning.Job(settings, spec, training_set, devices, checkpoints, stop or threading.Event())
    with work_folder(settings, "train") as scratch:
        measured = _measure(job, number, scratch)
    checkpoints.remove()
    return measured


def _measure(job: learning.Job, number: int, scratch: Path) -> FoldMeasured:
    def on_epoch(epoch: int, losses: Mapping[str, float]) -> None:
        log.info("epoch %d: %s", epoch, ", ".join(f"{name} {value:.5f}" for name, value in losses.items()))

    rows = joined(*learning.stage_splits(job, scratch), scratch / "joined")
    first, last = int(rows.times[0]) // MICROS_PER_DAY, int(rows.times[-1]) // MICROS_PER_DAY
    days = folds.folds_of(folds.policy_of(job.spec), first, last + 1)[number]
    cut = folds.cut(days, rows.times, np.timedelta64(job.spec.label.matures_after))
    splits = learning.Splits(folds.rows_of(rows, cut.train), folds.rows_of(rows, cut.stopping))
    held_out = folds.rows_of(rows, cut.measured)
    start, end = (str(np.datetime64(day, "D")) for day in (days.start, days.end))
    if not (len(splits.train) and len(splits.validation) and len(held_out)):
        raise HistoryError(
            expected=f"rows to learn from, to stop by and to measure on in the fold from {start} to {end}",
            found=f"{len(splits.train)}, {len(splits.validation)} and {len(held_out)}",
            next_step="build a training set whose days all have rows, or ask the spec for longer folds",
        )
    learnt = learning.learn(job, splits, scratch, on_epoch)
    encoded = encode(learnt.network, held_out, scratch / "encoded_measured")
    members = fitting.member_outputs(learnt.network, encoded)
    answers = learnt.network.label.answers(members, learnt.calibration)
    measures = measure(job.spec.label.target, np.array(held_out.labels), answers)
    figures, ranks = measures.figures(), job.spec.label.target.figures[0]
    value = figures[ranks.name]
    return FoldMeasured(
        fold=number,
        start=start,
        end=end,
        train_rows=len(splits.train),
        stopping_rows=len(splits.validation),
        rows=measures.rows,
        positives=measures.positives,
        best_epoch=learnt.best_epoch,
        figures=figures,
        summary="not defined" if value is None else f"{ranks.words} {value:.4f}",
    )


def joined(train: Staged, validation: Staged, folder: Path) -> Staged:
    """The rows of both splits, in order of time, in files in `folder`.

    Raises `HistoryError` when the validation split does not begin after the train split.
    """
    if not (len(train) and len(validation)) or train.times[-1] > validation.times[0]:
        raise HistoryError(
            expected="a train split, and a validation split after it",
            found=f"{len(train)} and {len(validation)} rows, not in order of time",
            next_step=NEXT,
        )
    folder.mkdir(parents=True)
    words = {name: np.union1d(train.words[name], validation.words[name]) for name in train.words}
    rows = len(train) + len(validation)

    def both(name: str, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        file = folder / f"{name}.npy"
        found = np.lib.format.open_memmap(file, mode="w+", dtype=first.dtype, shape=(rows,))
        for offset, part, split in ((0, first, train), (len(train), second, validation)):
            places = np.searchsorted(words[name], split.words[name]) if name in words else None
            for start in range(0, len(part), CHUNK_ROWS):
                values = part[start : start + CHUNK_ROWS]
                values = values if places is None else places[values]
                found[offset + start : offset + start + len(values)] = values
        return found

    return Staged(
        columns={
            name: both(name, values, validation.columns[name]) for name, values in train.columns.items()
        },
        words=words,
        labels=both("_label", train.labels, validation.labels),
        times=both("_time", train.times, validation.times),
        outcomes=None
        if train.outcomes is None or validation.outcomes is None
        else both("_outcome", train.outcomes, validation.outcomes),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = training_parser(
        "Train and measure one fold of a cross-validation.", parameters=True, commit=True
    )
    parser.add_argument("--fold", required=True, type=int, help="number of the fold, from 0")
    stop = threading.Event()
    stop_on_sigterm(stop)

    def work(arguments: argparse.Namespace, settings: Settings) -> FoldMeasured:
        return measure_fold(
            settings,
            use_case(arguments.use_case),
            training_set_of(arguments),
            arguments.fold,
            commit_of(arguments, settings),
            tuned=tuned_of(arguments),
            stop=stop,
        )

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
