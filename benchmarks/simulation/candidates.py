"""Candidates as of a moment: trained once, whoever asks, and kept on disk.

Belongs here: from the rows that are known at a moment to a model's answers, what it cost, its probes and its
monitoring profile. Does not belong here: whether it may serve (`gate`), or who asks for one when
(`replay`).

A model's weights do not change once it is made, so its answers to all later rows are computed at once, and
the clock needs no TensorFlow. What `airloop.training.train` does beside `learning.learn` is left out: MLflow,
the exported SavedModel, recorded requests. Of `airloop.training.evaluate`, serving costs, explanations and
the model card are. Both would take longer than these trainings do, and decide nothing.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from airloop.monitoring.profile import Profile, profile_of
from airloop.references import TrainingSet
from airloop.settings import Settings
from airloop.training import fitting, learning, probes
from airloop.training.checkpoints import Checkpoints
from airloop.training.devices import open_devices
from airloop.training.examples import SECONDS_PER_DAY, Columns
from airloop.training.network import OUTPUT
from airloop.training.served_model import input_signature
from airloop.use_cases.spec import UseCase
from airloop.verdict import Probe
from benchmarks.simulation.year import Year

BATCH: Final = 8192


class Model(Protocol):
    """What can be asked as a served model is."""

    def predict(self, columns: Columns) -> np.ndarray:
        """The probability of every row, float32 [rows]."""


Learner = Callable[[learning.Splits], Model]


class Candidate(NamedTuple):
    """One model."""

    as_of: datetime
    seconds: float
    """Wall clock of its training."""
    first: int
    """The row from which on it was asked: the first one of its test window."""
    answers: np.ndarray
    """Float32 [rows from there on]."""
    profile: Profile
    behaviours: tuple[Probe, ...]
    leaks: tuple[Probe, ...]

    def of(self, rows: slice) -> np.ndarray:
        """Its answers to those rows, which lie after all that it learnt from."""
        if rows.start < self.first:
            raise ValueError(f"row {rows.start} lies before the test window of {self.as_of:%Y-%m-%d}")
        return self.answers[rows.start - self.first : rows.stop - self.first]


class Candidates:
    """All candidates of a year, by the midnight that they look back from."""

    def __init__(self, year: Year, learner: Learner, folder: Path) -> None:
        """`folder` keeps what was made; it must be another one for other rows, code or parameters."""
        self._year, self._learner, self._folder = year, learner, folder
        self._there: dict[datetime, Candidate] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def as_of(self, midnight: datetime) -> Candidate:
        """The candidate as of `midnight`; raises `FutureError` where a label of its windows is not known."""
        if midnight not in self._there:
            self._there[midnight] = self._kept(midnight) or self._made(midnight)
        return self._there[midnight]

    def _made(self, midnight: datetime) -> Candidate:
        year, spec = self._year, self._year.spec
        splits = year.splits(midnight)
        train, test = year.examples(splits["train"]), year.examples(splits["test"])
        began = time.monotonic()
        model = self._learner(learning.Splits(*(year.staged(splits[n]) for n in ("train", "validation"))))
        seconds = time.monotonic() - began
        first = splits["test"].start
        answers = model.predict(year.examples(slice(first, len(year.rows))).columns).astype(np.float32)

        made = Candidate(
            as_of=midnight,
            seconds=seconds,
            first=first,
            answers=answers,
            profile=profile_of(
                *(spec, f"{midnight:%Y-%m-%d}"),
                train=train.columns,
                train_days=train.columns[spec.event_field] // SECONDS_PER_DAY,
                predictions=answers[: len(test)],
                labels=test.labels,
                test_days=test.columns[spec.event_field] // SECONDS_PER_DAY,
            ),
            behaviours=tuple(probes.behaviours(spec, model, test)),  # type: ignore[arg-type]  # asks `predict`
            leaks=tuple(probes.single_inputs(spec, test)),
        )
        file = self._file(midnight)
        np.save(file.with_suffix(".npy"), answers)
        written = {
            "seconds": seconds,
            "first": first,
            "profile": made.profile.model_dump(),
            "behaviours": [probe.model_dump() for probe in made.behaviours],
            "leaks": [probe.model_dump() for probe in made.leaks],
        }
        file.with_suffix(".part").write_text(json.dumps(written), encoding="utf-8")
        file.with_suffix(".part").rename(file)
        return made

    def _kept(self, midnight: datetime) -> Candidate | None:
        file = self._file(midnight)
        if not file.is_file():
            return None
        found = json.loads(file.read_text(encoding="utf-8"))
        return Candidate(
            as_of=midnight,
            seconds=found["seconds"],
            first=found["first"],
            answers=np.load(file.with_suffix(".npy")),
            profile=Profile.model_validate(found["profile"]),
            behaviours=tuple(Probe.model_validate(one) for one in found["behaviours"]),
            leaks=tuple(Probe.model_validate(one) for one in found["leaks"]),
        )

    def _file(self, midnight: datetime) -> Path:
        return self._folder / f"{midnight:%Y%m%d}.json"


class _Network:
    """A calibrated network, asked as its SavedModel would be."""

    def __init__(self, spec: UseCase, learnt: learning.Learnt) -> None:
        calibration = learnt.calibration
        served = learnt.network.served(calibration)
        self._signature = input_signature(spec)
        self._serve = tf.function(
            lambda inputs: served(inputs, training=False)[OUTPUT], input_signature=[self._signature]
        )

    def predict(self, columns: Columns) -> np.ndarray:
        parts = [np.zeros(0, np.float32)]
        for start in range(0, len(next(iter(columns.values()))), BATCH):
            batch = {
                name: tf.constant(columns[name][start : start + BATCH], kind.dtype)
                for name, kind in self._signature.items()
            }
            parts.append(self._serve(batch).numpy())
        return np.concatenate(parts)


def network_learner(
    settings: Settings, spec: UseCase, training_set: TrainingSet, environment: Mapping[str, str]
) -> Learner:
    """Trains the spec's own network, from scratch, as the training job does, with the spec's parameters."""
    fitting.make_deterministic(spec.training.seed, settings.training_threads)
    devices = open_devices(environment)

    def learn(splits: learning.Splits) -> Model:
        # Of graphs of earlier trainings nothing is needed.
        tf.keras.backend.clear_session()
        fitting.make_deterministic(spec.training.seed, settings.training_threads)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            job = learning.Job(
                settings, spec, training_set, devices, Checkpoints(folder / "checkpoints"), threading.Event()
            )
            return _Network(spec, learning.learn(job, splits, folder, lambda *_: None))

    return learn
