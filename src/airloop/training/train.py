"""Job: train a candidate on a pinned training set, and log it to MLflow with everything it came from.

    python -m airloop.training.train --use-case NAME --training-set JSON [--code-commit SHA] [--result FILE]

Belongs here: the order of the steps. Does not belong here: the steps. A rerun for the same training set,
spec and (clean) commit returns the run that is there; a run that died on the way is marked as failed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import keras
import numpy as np

from airloop.dotted import load
from airloop.errors import SettingsError
from airloop.jobs import run_job
from airloop.references import Candidate, Followed, TrainingSet
from airloop.registry import RECORDED_REQUESTS, SAVED_MODEL
from airloop.settings import Settings, load_settings
from airloop.training import fitting, statistics
from airloop.training.arguments import parse_reference
from airloop.training.calibration import Calibration, calibrate
from airloop.training.checkpoints import Checkpoints
from airloop.training.devices import TF_CONFIG, Devices, open_devices
from airloop.training.encoding import encode
from airloop.training.network import Network, require_parameters
from airloop.training.provenance import code_commit, is_reproducible
from airloop.training.served_model import ServedModel, export, recorded_requests
from airloop.training.staging import stage
from airloop.training.tracking import TRAINING_SET_FILE, TrainingRuns, params_of_run, tags_of_run
from airloop.training.workers import run_locally
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase

log = logging.getLogger(__name__)

SCRATCH: Final = "train-"


def train(
    settings: Settings,
    spec: UseCase,
    training_set: TrainingSet,
    commit: str,
    stop: threading.Event | None = None,
) -> Candidate | Followed:
    """Train on `training_set` and log the run; one that was interrupted goes on where it was.

    With several workers (see `airloop.training.devices`) each calls this; the first one alone writes, and the
    others return what they were. Soon after `stop` is set it writes a checkpoint and raises `PreemptedError`.

    Raises `HistoryError` when the training set is not what its reference says, `SpecError` when the spec's
    builder or parameters are unusable. The run is then marked as failed.
    """
    fitting.make_deterministic(spec.training.seed, settings.training_threads)
    devices = open_devices(os.environ)
    tags, params = tags_of_run(spec, training_set, commit), params_of_run(spec, training_set)
    runs = TrainingRuns(settings, spec) if devices.leads else None
    there = runs.finished_like(tags, params) if runs else None
    done = bool(devices.from_leader(np.array(there is not None)))
    if stop is not None:
        # Once more: TensorFlow's coordination of workers takes the signal for itself as it starts.
        stop_on_sigterm(stop)
    checkpoints = Checkpoints(_checkpoint_folder(settings, spec, tags, params))
    if runs and there:
        checkpoints.remove()
        log.info("run %s trained on %s already", there.info.run_id, training_set.tag)
        return Candidate(
            run_id=there.info.run_id, model_uri=runs.artifact_uri(there.info.run_id, SAVED_MODEL)
        )
    if done:
        return Followed(worker=devices.worker)
    settings.scratch_dir.mkdir(parents=True, exist_ok=True)
    _sweep(settings.scratch_dir)
    job = _Job(settings, spec, training_set, devices, checkpoints, stop or threading.Event())
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH}{os.getpid()}-", dir=settings.scratch_dir) as scratch:
        if runs is None:
            _fit(job, Path(scratch), lambda *_: None)
            return Followed(worker=devices.worker)
        if not is_reproducible(commit):
            checkpoints.remove()
        run_id = runs.start(tags, params)
        try:
            artifacts = Path(scratch) / "artifacts"
            _train_into(artifacts, Path(scratch), job, runs, run_id)
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


class _Job(NamedTuple):
    """What a training is about."""

    settings: Settings
    spec: UseCase
    training_set: TrainingSet
    devices: Devices
    checkpoints: Checkpoints
    stop: threading.Event

    def go_on(self) -> None:
        """Raises `PreemptedError` at all workers once one is to stop; fitting asks by itself, and saves."""
        if self.devices.any_worker(self.stop.is_set()):
            raise fitting.PreemptedError("stopped between two steps of the job")


class _Fitted(NamedTuple):
    """What every worker has in the end."""

    network: Network
    best_epoch: int
    calibration: Calibration
    base_rate: float


def _checkpoint_folder(
    settings: Settings, spec: UseCase, tags: Mapping[str, str], params: Mapping[str, str]
) -> Path:
    """One for each model that can come out: the same data, code and parameters go on from it, no others."""
    made_from = json.dumps([sorted(tags.items()), sorted(params.items())])
    return settings.checkpoints_dir / spec.name / hashlib.sha256(made_from.encode()).hexdigest()[:16]


def _fit(job: _Job, scratch: Path, on_epoch: fitting.OnEpoch) -> _Fitted:
    """Stage the rows in `scratch`, and fit a network on them."""
    policy = job.spec.training
    require_parameters(policy.parameters, frozenset({"quantile_bins"}), "the statistics")
    train_split = stage(job.settings, job.spec, job.training_set, "train", scratch / "train")
    job.go_on()
    validation = stage(job.settings, job.spec, job.training_set, "validation", scratch / "validation")
    job.go_on()
    facts = statistics.compute(job.spec, train_split, bins=int(policy.parameters["quantile_bins"]))
    with job.devices.strategy.scope():
        network: Network = load(policy.model_builder)(job.spec, facts, policy.parameters)
    encoded_validation = encode(network, validation, scratch / "encoded_validation")
    encoded_train = encode(network, train_split, scratch / "encoded_train")
    job.go_on()
    best = fitting.fit(
        network,
        encoded_train,
        encoded_validation,
        policy.parameters,
        policy.seed,
        on_epoch,
        devices=job.devices,
        checkpoints=job.checkpoints,
        stop=job.stop,
    )
    if keras.mixed_precision.global_policy().name != "float32":
        # What is served computes as it was trained, but on a processor that has no half precision.
        keras.mixed_precision.set_global_policy("float32")
        weights = network.head.get_weights()
        network = load(policy.model_builder)(job.spec, facts, policy.parameters)
        network.head.set_weights(weights)
    found = fitting.logits(network, encoded_validation)
    return _Fitted(network, best, calibrate(found, validation.labels, facts.prior_logit), facts.base_rate)


def _train_into(folder: Path, scratch: Path, job: _Job, runs: TrainingRuns, run_id: str) -> None:
    """Write the run's artifacts to `folder`, and log its metrics on the way."""

    def on_epoch(epoch: int, losses: Mapping[str, float]) -> None:
        log.info("epoch %d: %s", epoch, ", ".join(f"{name} {value:.5f}" for name, value in losses.items()))
        runs.log_metrics(run_id, losses, step=epoch)

    network, best_epoch, calibration, base_rate = _fit(job, scratch, on_epoch)
    runs.log_metrics(
        run_id,
        {
            "best_epoch": best_epoch,
            "calibration_slope": calibration.slope,
            "calibration_offset": calibration.offset,
            "train_base_rate": base_rate,
        },
    )
    saved_model = folder / SAVED_MODEL
    export(network.served(slope=calibration.slope, offset=calibration.offset), job.spec, saved_model)
    test = stage(job.settings, job.spec, job.training_set, "test", scratch / "test")
    sample = test.at(test.spread(job.spec.rollout.replayed_requests)).columns
    recorded = recorded_requests(ServedModel(saved_model), sample)
    (folder / RECORDED_REQUESTS).write_text(recorded, encoding="utf-8")
    (folder / TRAINING_SET_FILE).write_text(job.training_set.model_dump_json(indent=2), encoding="utf-8")


def _sweep(scratch: Path) -> None:
    """Remove what trainings left that were killed on this machine."""
    for folder in scratch.glob(f"{SCRATCH}*"):
        owner = folder.name.removeprefix(SCRATCH).split("-")[0]
        if owner.isdecimal() and not Path("/proc", owner).exists():
            shutil.rmtree(folder, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Train a candidate on a pinned training set.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--training-set", required=True, help="TrainingSet reference, JSON")
    parser.add_argument("--code-commit", help="commit to record; by default the repository's")
    arguments = sys.argv[1:] if argv is None else list(argv)
    stop = threading.Event()
    stop_on_sigterm(stop)
    try:
        workers = load_settings().training_workers
    except SettingsError:
        # The job itself meets it again, and reports it as jobs do.
        workers = 1
    if workers > 1 and TF_CONFIG not in os.environ:
        return run_locally(workers, "airloop.training.train", arguments, stop)

    def work(arguments: argparse.Namespace, settings: Settings) -> Candidate | Followed:
        return train(
            settings,
            use_case(arguments.use_case),
            parse_reference(TrainingSet, arguments.training_set, "--training-set"),
            arguments.code_commit or code_commit(settings.repository),
            stop,
        )

    return run_job(parser, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
