"""From a pinned training set to a calibrated network: what a candidate, a trial and a fold have in common.

Belongs here: the order of staging, statistics, encoding, fitting and calibrating, and the folder in which
they work. Does not belong here: each of those steps, what is logged, or why a network is wanted (`train`,
`trial`, `fold`).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from airloop.dotted import load
from airloop.errors import SpecError
from airloop.references import TrainingSet, Tuned
from airloop.row_losses import row_losses
from airloop.settings import Settings
from airloop.training import fitting, statistics
from airloop.training.calibration import Calibration
from airloop.training.checkpoints import Checkpoints
from airloop.training.devices import Devices
from airloop.training.encoding import encode
from airloop.training.network import Network, require_parameters
from airloop.training.staging import Staged, stage
from airloop.use_cases.spec import UseCase


class Job(NamedTuple):
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


class Splits(NamedTuple):
    """The rows that a network learns from, and the later ones that say when to stop."""

    train: Staged
    validation: Staged


class Learnt(NamedTuple):
    """What every worker has in the end."""

    network: Network
    best_epoch: int
    calibration: Calibration
    validation_loss: float
    """Of the calibrated network; see `row_losses`."""
    label_mean: float
    """Of the train split."""


def with_parameters(spec: UseCase, tuned: Tuned | None) -> UseCase:
    """`spec` with the parameters of a study in place of its own; raises `SpecError` when they are others."""
    if tuned is None:
        return spec
    if tuned.parameters.keys() != spec.training.parameters.keys():
        raise SpecError(
            expected=f"parameters {', '.join(sorted(spec.training.parameters))} from study {tuned.study}",
            found=", ".join(sorted(tuned.parameters)) or "none",
            next_step="tune again: the spec has changed since",
        )
    policy = spec.training.model_copy(update={"parameters": dict(tuned.parameters)})
    return spec.model_copy(update={"training": policy})


def stage_splits(job: Job, scratch: Path) -> Splits:
    """The train and the validation split of the job's training set, staged in `scratch`."""
    train = stage(job.settings, job.spec, job.training_set, "train", scratch / "train")
    job.go_on()
    validation = stage(job.settings, job.spec, job.training_set, "validation", scratch / "validation")
    job.go_on()
    return Splits(train, validation)


def learn(job: Job, splits: Splits, scratch: Path, on_epoch: fitting.OnEpoch) -> Learnt:
    """Fit a network of the job's spec on `splits`, and calibrate it; encoded rows go to `scratch`.

    Raises what `fitting.fit` raises, and whatever `on_epoch` does.
    """
    policy = job.spec.training
    require_parameters(policy.parameters, frozenset({"quantile_bins"}), "the statistics")
    facts = statistics.compute(job.spec, splits.train, bins=int(policy.parameters["quantile_bins"]))
    with job.devices.strategy.scope():
        network: Network = load(policy.model_builder)(job.spec, facts, policy.parameters)
    encoded_validation = encode(network, splits.validation, scratch / "encoded_validation")
    encoded_train = encode(network, splits.train, scratch / "encoded_train", job.spec.label.thresholds)
    job.go_on()
    best = fitting.fit(
        network,
        job.spec.label.target.loss,
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
    members, labels = fitting.member_outputs(network, encoded_validation), splits.validation.labels
    calibration = network.label.calibrate(members, labels)
    answers = network.label.answers(members, calibration)
    loss = float(np.mean(row_losses(job.spec.label.target, labels, answers)))
    return Learnt(network, best, calibration, loss, facts.label_mean)


def checkpoint_folder(
    settings: Settings, spec: UseCase, tags: Mapping[str, str], params: Mapping[str, str]
) -> Path:
    """One for each model that can come out: the same data, code and parameters go on from it, no others."""
    made_from = json.dumps([sorted(tags.items()), sorted(params.items())])
    return settings.checkpoints_dir / spec.name / hashlib.sha256(made_from.encode()).hexdigest()[:16]
