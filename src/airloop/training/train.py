"""Job: train a candidate on a pinned training set, and log it to MLflow with everything it came from.

    python -m airloop.training.train --use-case NAME --training-set JSON [--parameters JSON]
        [--code-commit SHA] [--result FILE]

Belongs here: the order of the steps. Does not belong here: the steps. A rerun for the same training set,
spec and (clean) commit returns the run that is there; a run that died on the way is marked as failed.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from airloop import airflow_run
from airloop.cost.prices import load_prices
from airloop.errors import SettingsError
from airloop.jobs import run_job
from airloop.references import Candidate, Followed, TrainingSet, Tuned
from airloop.registry import FEATURE_SERVICE, RECORDED_REQUESTS, SAVED_MODEL
from airloop.settings import Settings, load_settings
from airloop.training import fitting, learning, model_metadata
from airloop.training.arguments import commit_of, training_parser, training_set_of, tuned_of
from airloop.training.checkpoints import Checkpoints
from airloop.training.devices import TF_CONFIG, open_devices
from airloop.training.provenance import is_reproducible
from airloop.training.served_model import ServedModel, export, recorded_requests
from airloop.training.staging import stage
from airloop.training.tracking import (
    AIRFLOW_RUN,
    REQUESTED_BECAUSE,
    TRAINING_SET_FILE,
    TrainingRuns,
    params_of_run,
    tags_of_run,
)
from airloop.training.warm_up_requests import write_warm_up_requests
from airloop.training.workers import run_locally
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from airloop.work_folders import work_folder

log = logging.getLogger(__name__)

MODULE: Final = "airloop.training.train"
"""As it is started, and priced."""


def train(
    settings: Settings,
    spec: UseCase,
    training_set: TrainingSet,
    commit: str,
    stop: threading.Event | None = None,
    tuned: Tuned | None = None,
    *,
    requested_because: str = "",
) -> Candidate | Followed:
    """Train on `training_set` and log the run; one that was interrupted goes on where it was.

    The parameters are those of `tuned`, if it is given, and the run then names the study. It says why it was
    `requested_because`, if that is given.

    With several workers (see `airloop.training.devices`) each calls this; the first one alone writes, and the
    others return what they were. Soon after `stop` is set it writes a checkpoint and raises `PreemptedError`.

    Raises `HistoryError` when the training set is not what its reference says, `SpecError` when the spec's
    builder or parameters are unusable. The run is then marked as failed.
    """
    fitting.make_deterministic(spec.training.seed, settings.training_threads)
    devices = open_devices(os.environ)
    spec = learning.with_parameters(spec, tuned)
    tags, params = tags_of_run(spec, training_set, commit), params_of_run(spec, training_set, tuned)
    runs = TrainingRuns(settings, spec) if devices.leads else None
    there = runs.finished_like(tags, params) if runs else None
    done = bool(devices.from_leader(np.array(there is not None)))
    if stop is not None:
        # Once more: TensorFlow's coordination of workers takes the signal for itself as it starts.
        stop_on_sigterm(stop)
    checkpoints = Checkpoints(learning.checkpoint_folder(settings, spec, tags, params))
    why = {
        AIRFLOW_RUN: airflow_run.run_id(),
        **({REQUESTED_BECAUSE: requested_because} if requested_because else {}),
    }
    if runs and there:
        checkpoints.remove()
        runs.tag(there.info.run_id, why)
        log.info("run %s trained on %s already", there.info.run_id, training_set.tag)
        return Candidate(
            run_id=there.info.run_id, model_uri=runs.artifact_uri(there.info.run_id, SAVED_MODEL)
        )
    if done:
        return Followed(worker=devices.worker)
    job = learning.Job(settings, spec, training_set, devices, checkpoints, stop or threading.Event())
    with work_folder(settings, "train") as scratch:
        if runs is None:
            learning.learn(job, learning.stage_splits(job, scratch), scratch, lambda *_: None)
            return Followed(worker=devices.worker)
        if not is_reproducible(commit):
            checkpoints.remove()
        run_id = runs.start(tags, params)
        try:
            runs.tag(run_id, why)
            artifacts = scratch / "artifacts"
            _train_into(artifacts, scratch, job, runs, run_id)
            runs.log_artifacts(run_id, artifacts)
            runs.finish(run_id)
        except BaseException:
            runs.fail(run_id)
            raise
    checkpoints.remove()
    return Candidate(run_id=run_id, model_uri=runs.artifact_uri(run_id, SAVED_MODEL))


def stop_on_sigterm(stop: threading.Event) -> None:
    """Set `stop` on what a spot machine, a scheduler and Airflow send before they take the machine away."""
    signal.signal(signal.SIGTERM, lambda *_: stop.set())


def _train_into(folder: Path, scratch: Path, job: learning.Job, runs: TrainingRuns, run_id: str) -> None:
    """Write the run's artifacts to `folder`, and log its metrics on the way."""
    began = time.monotonic()

    def on_epoch(epoch: int, losses: Mapping[str, float]) -> None:
        log.info("epoch %d: %s", epoch, ", ".join(f"{name} {value:.5f}" for name, value in losses.items()))
        runs.log_metrics(run_id, losses, step=epoch)

    splits = learning.stage_splits(job, scratch)
    learnt = learning.learn(job, splits, scratch, on_epoch)
    calibration = learnt.calibration
    target = job.spec.label.target
    runs.log_metrics(
        run_id,
        {
            "best_epoch": learnt.best_epoch,
            "calibration_slope": calibration.slope,
            "calibration_offset": calibration.offset,
            f"calibrated_val_{target.loss.name}": learnt.validation_loss,
            "train_base_rate" if target.kind == "binary" else "train_label_mean": learnt.label_mean,
        },
    )
    saved_model = folder / SAVED_MODEL
    served = learnt.network.served(calibration)
    export(served, job.spec, saved_model)
    test = stage(job.settings, job.spec, job.training_set, "test", scratch / "test")
    sample = test.at(test.spread(job.spec.rollout.replayed_requests)).columns
    recorded = recorded_requests(ServedModel(saved_model), sample)
    (folder / RECORDED_REQUESTS).write_text(recorded, encoding="utf-8")
    write_warm_up_requests(saved_model, job.spec, sample)
    (folder / TRAINING_SET_FILE).write_text(job.training_set.model_dump_json(indent=2), encoding="utf-8")
    model_metadata.write_model_file(saved_model, job.spec, run_id, sample)
    lock = model_metadata.write_environment_lock(folder, job.settings.repository)
    seconds = time.monotonic() - began
    prices = load_prices(job.settings)
    per_hour = None if prices is None else prices.job_per_hour(MODULE)
    cost = model_metadata.cost_of(seconds, job.devices, per_hour)
    runs.log_metrics(run_id, cost.metrics)
    runs.tag(
        run_id,
        {
            FEATURE_SERVICE: job.spec.feature_service or "none",
            model_metadata.ENVIRONMENT_LOCK_DIGEST: lock,
            model_metadata.DEVICE_KIND: cost.device_kind,
        },
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = training_parser("Train a candidate on a pinned training set.", parameters=True, commit=True)
    parser.add_argument("--requested-because", default="", help="why it is trained, for the record")
    arguments = sys.argv[1:] if argv is None else list(argv)
    stop = threading.Event()
    stop_on_sigterm(stop)
    try:
        workers = load_settings().training_workers
    except SettingsError:
        # The job itself meets it again, and reports it as jobs do.
        workers = 1
    if workers > 1 and TF_CONFIG not in os.environ:
        return run_locally(workers, MODULE, arguments, stop)

    def work(arguments: argparse.Namespace, settings: Settings) -> Candidate | Followed:
        return train(
            settings,
            use_case(arguments.use_case),
            training_set_of(arguments),
            commit_of(arguments, settings),
            stop,
            tuned_of(arguments),
            requested_because=arguments.requested_because,
        )

    return run_job(parser, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
