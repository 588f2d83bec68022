"""Job: one trial of a study: train with parameters that the study proposes, and tell it how good they are.

    python -m airloop.training.trial --use-case NAME --training-set JSON --study NAME --slot N
        [--code-commit SHA] [--result FILE]

Belongs here: a trial's way from asking to telling. Does not belong here: what is proposed (`tuning`), or the
training itself (`learning`). The test split is never read.

A trial trains in one process, whatever `AIRLOOP_TRAINING_WORKERS` says: trials, not their parts, are what
runs at once. An interrupted one goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from airloop.errors import SpecError, TuningError
from airloop.jobs import run_job
from airloop.references import TrainingSet, TrialDone
from airloop.settings import Settings
from airloop.training import fitting, learning, tuning
from airloop.training.arguments import commit_of, training_parser, training_set_of
from airloop.training.checkpoints import Checkpoints
from airloop.training.devices import TF_CONFIG, open_devices
from airloop.training.provenance import is_reproducible
from airloop.training.tracking import params_of_run, tags_of_run
from airloop.training.train import stop_on_sigterm
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from airloop.work_folders import work_folder

log = logging.getLogger(__name__)


def run_trial(
    settings: Settings,
    spec: UseCase,
    training_set: TrainingSet,
    name: str,
    slot: int,
    commit: str,
    *,
    now: datetime,
    stop: threading.Event | None = None,
) -> TrialDone:
    """Do what is left to do for `slot` of the study `name`: nothing, when it is done or the time is over.

    A trial ends early when its validation log loss is worse than the median of the trials before it at the
    same epoch, or not finite; not that of the spec's own parameters, which the others are compared with.

    Raises `TuningError` when there is no such study, or it is one of other rows, code or another spec;
    `SpecError` where several processes are to share a training; and what a training raises. The trial has
    then failed, and the next one of this slot tries the same parameters.
    """
    if name != (expected := tuning.study_name(spec, training_set, commit)):
        raise TuningError(
            expected=f"the study {expected} of this training set, spec and code",
            found=f"--study {name}",
            next_step="open the study again (airloop.training.study): the code or the spec has changed since",
        )
    study = tuning.load_study(settings, spec, name, slot)
    if done := tuning.finished(study, slot):
        log.info("slot %d is done: trial %d, %s", slot, done.number, done.state.name.lower())
        return _outcome(study, slot, done)
    if tuning.is_over(study, now):
        log.info("the study's time is over: slot %d is left out", slot)
        return TrialDone(
            study=name,
            slot=slot,
            state="skipped",
            loss=None,
            parameters={},
            summary="skipped, time is over",
        )
    fitting.make_deterministic(spec.training.seed, settings.training_threads)
    devices = open_devices(os.environ)
    if devices.workers > 1:
        raise SpecError(
            expected="a trial to have one process",
            found=f"{devices.workers} workers in {TF_CONFIG}",
            next_step=f"start trials without {TF_CONFIG}; several of them can run at once",
        )
    trial = tuning.ask(study, spec, slot)
    policy = spec.training.model_copy(update={"parameters": {**spec.training.parameters, **trial.params}})
    tried = spec.model_copy(update={"training": policy})
    log.info("slot %d is trial %d: %s", slot, trial.number, trial.params)
    tags = {**tags_of_run(tried, training_set, commit), "study": name, "slot": str(slot)}
    checkpoints = Checkpoints(
        learning.checkpoint_folder(settings, tried, tags, params_of_run(tried, training_set))
    )
    if not is_reproducible(commit):
        checkpoints.remove()
    job = learning.Job(settings, tried, training_set, devices, checkpoints, stop or threading.Event())
    try:
        told = study.tell(trial, _loss(job, trial, may_prune=slot != tuning.OWN_SLOT))
    except optuna.TrialPruned:
        told = study.tell(trial, state=TrialState.PRUNED)
    except BaseException:
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        raise
    checkpoints.remove()
    return _outcome(study, slot, told)


def _loss(job: learning.Job, trial: optuna.Trial, *, may_prune: bool) -> float:
    """Train, reporting each epoch to `trial`; returns the validation loss of what would be
    served: the best epoch's network, calibrated."""
    reported: list[float] = []

    def on_epoch(epoch: int, losses: Mapping[str, float]) -> None:
        log.info("epoch %d: %s", epoch, ", ".join(f"{name} {value:.5f}" for name, value in losses.items()))
        loss = losses[f"val_{job.spec.label.target.loss.name}"]
        reported.append(loss if math.isfinite(loss) else math.inf)
        trial.report(reported[-1], epoch)
        if math.isinf(reported[-1]) or (may_prune and trial.should_prune()):
            raise optuna.TrialPruned

    with work_folder(job.settings, "train") as scratch:
        learnt = learning.learn(job, learning.stage_splits(job, scratch), scratch, on_epoch)
    return learnt.validation_loss


def _outcome(study: optuna.Study, slot: int, trial: FrozenTrial) -> TrialDone:
    state: Literal["complete", "pruned"] = "complete" if trial.state == TrialState.COMPLETE else "pruned"
    loss = trial.value if trial.value is not None and math.isfinite(trial.value) else None
    shown = "diverged" if loss is None else f"loss {loss:.4f}"
    return TrialDone(
        study=study.study_name,
        slot=slot,
        state=state,
        loss=loss,
        parameters=trial.params,
        summary=shown if state == "complete" else f"{state}, {shown}",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = training_parser("Run one trial of a study.", commit=True)
    parser.add_argument("--study", required=True, help="the study's name, as airloop.training.study gave it")
    parser.add_argument("--slot", required=True, type=int, help="number of the slot, from 0")
    stop = threading.Event()
    stop_on_sigterm(stop)

    def work(arguments: argparse.Namespace, settings: Settings) -> TrialDone:
        return run_trial(
            settings,
            use_case(arguments.use_case),
            training_set_of(arguments),
            arguments.study,
            arguments.slot,
            commit_of(arguments, settings),
            now=datetime.now(UTC),
            stop=stop,
        )

    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
