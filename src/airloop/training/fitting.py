"""Fitting a network: gradient descent with early stopping, on one device or many, the same each time.

Belongs here: the optimiser, the step, the epochs, and going on from a checkpoint. Does not belong here: the
architecture, MLflow, which rows a step gets (`feeding`), or what it runs on (`devices`).

Two runs on one machine with the same threads give the same weights: every seed is set and TensorFlow is told
to be deterministic. Another processor, or another number of threads or workers, may round differently.

The loop is our own because Keras' `fit` fails under `MultiWorkerMirroredStrategy` (keras-team/keras#20585),
and knows no way to go on in the middle of an epoch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from airloop.errors import HistoryError, SpecError
from airloop.training.checkpoints import Checkpoints, Progress
from airloop.training.devices import Devices
from airloop.training.dropout import masks_at
from airloop.training.encoding import Encoded
from airloop.training.feeding import in_order, training_batches
from airloop.training.network import Network, require_parameters
from airloop.use_cases.target import Figure

log = logging.getLogger(__name__)

VALIDATION_BATCH: Final = 8192
GRADIENT_NORM: Final = 1.0
WARM_UP_SHARE: Final = 0.1
STEPS_AT_ONCE: Final = 16
"""Steps between two looks at the clock and at a request to stop: Python costs more than a small step."""
XLA_MOST_ROWS: Final = 4096
"""Rows of a replica's share up to which a compiled step is the faster one. Measured on one H100: 2.8 times
as fast with 1,024 rows, 0.6 times with 8,192 (`docs/adr/0020-xla-and-bfloat16-on-a-gpu.md`)."""
CHECKPOINT_SECONDS: Final = 60.0
PROGRESS_SECONDS: Final = 10.0
PARAMETERS: Final = frozenset(
    {"learning_rate", "weight_decay", "weight_average", "batch_size", "max_epochs", "patience_epochs"}
)

OnEpoch = Callable[[int, Mapping[str, float]], None]


class PreemptedError(Exception):
    """The machine is wanted back: the state is saved, and the same job goes on from there.

    Not an `AirloopError`: those are permanent, and this is to be tried again.
    """


def make_deterministic(seed: int, threads: int) -> None:
    """Seed Python, NumPy and TensorFlow, and fix TensorFlow's threads; call it before TensorFlow computes."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        # Started already in this process; a job's own process has not.
        return


def member_outputs(network: Network, encoded: Encoded) -> np.ndarray:
    """What each of the head's members says about the label of every row, in order, float32
    [rows, members, outputs]."""
    parts = [np.zeros((0, network.head.output_shape[1], network.label.outputs), np.float32)]
    parts += [network.label_outputs(inputs).numpy() for inputs, _ in in_order(encoded, VALIDATION_BATCH)]
    return np.concatenate(parts)


def fit(
    network: Network,
    loss_figure: Figure,
    train: Encoded,
    validation: Encoded,
    parameters: Mapping[str, int | float],
    seed: int,
    on_epoch: OnEpoch,
    *,
    devices: Devices,
    checkpoints: Checkpoints,
    stop: threading.Event | None = None,
) -> int:
    """Fit the head on encoded rows; the weights of the epoch with the best validation loss stay.

    What is minimised is the label's mean loss (`airloop.training.heads`) plus `outcome_weight` times the mean
    cross-entropy of the outcome's thresholds (Caruana, "Multitask learning", 1997: what is known of training
    examples alone can be learned beside the label); what is told and validated is the label's alone.

    The learning rate rises over the first tenth of an epoch's steps and falls to zero along a cosine;
    `weight_average` is the momentum of an average of the weights, which is what is validated and kept
    (0: none). `on_epoch` is told each epoch's losses. A training that has a checkpoint goes on from it, with
    the same rows in the same steps as if it had not stopped. Returns the number of the best epoch, from 0.

    Raises `SpecError` for parameters that are absent, do not fit the devices, or make the loss diverge,
    `HistoryError` for fewer rows than replicas, and `PreemptedError`, with a checkpoint written, soon after
    `stop` is set.
    """
    needed = PARAMETERS | {"outcome_weight"} if train.thresholds else PARAMETERS
    require_parameters(parameters, needed, "fitting")
    fitting = Fitting(network, train, parameters, seed, devices, checkpoints)
    fitting.restore()
    progress = fitting.progress
    for epoch, losses in enumerate(progress.history):
        on_epoch(epoch, _named(loss_figure, losses))
    patience, epochs = int(parameters["patience_epochs"]), int(parameters["max_epochs"])
    while progress.epoch < epochs and progress.epoch - 1 - progress.best_epoch < max(patience, 1):
        train_loss = fitting.run_epoch(stop or threading.Event())
        fitting.save()
        with fitting.averaged():
            # The first worker's counts: another processor may round differently, and all must stop at once.
            mine = network.label.mean_loss(member_outputs(network, validation), validation.labels)
            loss = float(devices.from_leader(np.array(mine)))
            progress.history.append((train_loss, loss))
            if progress.best_epoch == progress.epoch - 1:
                progress.best_weights = [np.array(value) for value in network.head.get_weights()]
        progress.step, progress.seen_loss = 0, 0.0
        on_epoch(progress.epoch - 1, _named(loss_figure, progress.history[-1]))
        fitting.save()
    if progress.best_epoch < 0:
        # Or every next try would go on from here, and end here.
        checkpoints.remove()
        raise SpecError(
            expected="a finite validation loss after at least one epoch",
            found=f"{[loss for _, loss in progress.history]}",
            next_step="lower training.parameters.learning_rate, or look for absurd values in the rows",
        )
    network.head.set_weights(progress.best_weights)
    return progress.best_epoch


class Fitting:
    """The state of one training, and its steps."""

    progress: Progress

    def __init__(
        self,
        network: Network,
        train: Encoded,
        parameters: Mapping[str, int | float],
        seed: int,
        devices: Devices,
        checkpoints: Checkpoints,
    ) -> None:
        self.progress = Progress()
        self._head, self._label = network.head, network.label
        self._train, self._seed = train, seed
        self._devices, self._checkpoints = devices, checkpoints
        replicas = devices.replicas
        if len(train) < replicas:
            raise HistoryError(
                expected=f"a row in the train split for each of the {replicas} replicas",
                found=f"{len(train)}",
                next_step="build a training set over a longer window, or train on fewer devices",
            )
        self._batch = min(int(parameters["batch_size"]), len(train) // replicas * replicas)
        self._steps = len(train) // self._batch
        self._epochs = int(parameters["max_epochs"])
        self._outcome_weight = float(parameters["outcome_weight"]) if train.thresholds else 0.0
        self._averages = float(parameters["weight_average"]) > 0
        with devices.strategy.scope():
            self._optimiser = optimiser(parameters, self._steps * self._epochs, self._steps)
            self._optimiser.build(self._head.trainable_variables)
        self.compiled = devices.compiled and devices.share_of(self._batch) <= XLA_MOST_ROWS
        self._step = tf.function(self._one_step, jit_compile=True) if self.compiled else self._one_step
        self._run = tf.function(self._run_steps, reduce_retracing=True)

    def run_epoch(self, stop: threading.Event) -> float:
        """Run the rest of the epoch that `progress` is in; returns the mean of all its steps' losses."""
        progress = self.progress
        rows = training_batches(
            *(self._train, self._batch, self._seed, progress.epoch),
            first_step=progress.step,
            devices=self._devices,
        )
        return self.run_steps(rows, stop)

    def run_steps(self, rows: tf.data.Dataset, stop: threading.Event) -> float:
        """The same with `rows` as `training_batches` makes them."""
        progress = self.progress
        batches = iter(self._devices.strategy.distribute_datasets_from_function(lambda _: rows))
        began, first = time.monotonic(), progress.step
        saved = told = began
        while progress.step < self._steps:
            count = min(STEPS_AT_ONCE, self._steps - progress.step)
            progress.seen_loss += float(self._run(batches, tf.constant(count)))
            progress.step += count
            now = time.monotonic()
            # All stop or none: the others would wait for one that is gone.
            if self._devices.any_worker(stop.is_set()):
                self.save()
                raise PreemptedError(f"stopped in epoch {progress.epoch} after step {progress.step}")
            if now - saved >= CHECKPOINT_SECONDS:
                self.save()
                saved = now
            if now - told >= PROGRESS_SECONDS:
                self._tell(now - began, progress.step - first)
                told = now
        self._tell(time.monotonic() - began, progress.step - first)
        return progress.seen_loss / self._steps

    def _run_steps(self, batches: Any, count: tf.Tensor) -> tf.Tensor:
        """`count` steps; the sum of their losses."""
        strategy = self._devices.strategy
        total = tf.constant(0.0)
        for _ in tf.range(count):
            losses = strategy.run(self._step, args=next(batches))
            total += strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)
        return total

    def _one_step(self, inputs: dict[str, tf.Tensor], targets: tf.Tensor) -> tf.Tensor:
        """One replica's part of a step; returns its part of the global batch's mean loss of the label."""
        variables = self._head.trainable_variables
        context = tf.distribute.get_replica_context()
        first_row = context.replica_id_in_sync_group * self._devices.share_of(self._batch)
        masks = masks_at(self._seed, self._optimiser.iterations.value, first_row)
        with masks, tf.GradientTape() as tape:
            found = tf.cast(self._head(inputs, training=True), tf.float32)
            loss, total = self._label.losses(targets, found, self._batch, self._outcome_weight)
        gradients = [
            tf.convert_to_tensor(item) for item in tape.gradient(total, [v.value for v in variables])
        ]
        replicas = self._devices.replicas
        if replicas > 1:
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        # The norm of the whole batch's gradient is what is limited, so the optimiser is not left to do it: it
        # would limit each replica's part. It sums over replicas once more, hence the division.
        gradients, _ = tf.clip_by_global_norm(gradients, GRADIENT_NORM)
        self._optimiser.apply([item / replicas for item in gradients], variables)
        return loss

    def averaged(self) -> _Averaged:
        """The averaged weights in place of the present ones, for a `with` block."""
        return _Averaged(self._head, self._optimiser if self._averages else None)

    def _variables(self) -> list[Any]:
        return [*self._head.variables, *self._optimiser.variables]

    def save(self) -> None:
        """Write a checkpoint; one worker does it for all, for all have the same state."""
        if self._devices.leads:
            self._checkpoints.save(self.progress, [np.array(item) for item in self._variables()])

    def restore(self) -> None:
        """Go on from the checkpoint of the leading worker, if it has one."""
        variables = self._variables()
        shapes = [tuple(item.shape) for item in variables]
        found = self._checkpoints.load(shapes) if self._devices.leads else None
        if self._devices.workers > 1:
            found = self._from_leader(found)
        if found is None:
            return
        self.progress, values = found
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        log.info("going on in epoch %d after step %d", self.progress.epoch, self.progress.step)

    def _from_leader(
        self, found: tuple[Progress, list[np.ndarray]] | None
    ) -> tuple[Progress, list[np.ndarray]] | None:
        """What the leading worker `found`, at every worker: only its disk need have survived."""
        progress, values = found or (Progress(), [])
        position = progress.position()
        facts = np.array([found is not None, bool(progress.best_weights), len(position)], np.int64)
        there, has_best, length = self._devices.from_leader(facts).tolist()
        if not there:
            return None
        position = self._devices.from_leader(position if found else np.zeros(length))
        weights = [np.array(value) for value in self._head.get_weights()]
        best = (
            [self._devices.from_leader(item) for item in progress.best_weights or weights] if has_best else []
        )
        values = values or [np.array(item) for item in self._variables()]
        return Progress.at(position, best), [self._devices.from_leader(item) for item in values]

    def _tell(self, seconds: float, steps: int) -> None:
        if not steps or not self._devices.leads:
            return
        progress = self.progress
        left = (self._epochs - progress.epoch) * self._steps - progress.step
        log.info(
            "epoch %d of at most %d, step %d of %d: loss %.5f, %.0f examples a second, at most %.0f s to go",
            *(progress.epoch, self._epochs, progress.step, self._steps),
            progress.seen_loss / progress.step,
            steps * self._batch / seconds,
            left * seconds / steps,
        )


class _Averaged:
    """Swaps a model's weights for their average, and back."""

    def __init__(self, head: keras.Model, optimiser: keras.optimizers.Optimizer | None) -> None:
        self._head, self._optimiser = head, optimiser
        self._kept: list[np.ndarray] = []

    def __enter__(self) -> None:
        if self._optimiser is not None:
            self._kept = [np.array(value) for value in self._head.get_weights()]
            self._optimiser.finalize_variable_values(self._head.trainable_variables)

    def __exit__(self, *_: object) -> None:
        if self._optimiser is not None:
            self._head.set_weights(self._kept)


def optimiser(
    parameters: Mapping[str, int | float], steps: int, epoch_steps: int, *, clip: bool = False
) -> keras.optimizers.Optimizer:
    """AdamW with the rate of `steps` steps in all; limits the gradient's norm itself only with `clip`."""
    warm_up = max(1, round(epoch_steps * WARM_UP_SHARE))
    rate = float(parameters["learning_rate"])
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=rate / 10,
        decay_steps=max(1, steps - warm_up),
        warmup_target=rate,
        warmup_steps=warm_up,
    )
    average = float(parameters["weight_average"])
    return keras.optimizers.AdamW(
        schedule,
        weight_decay=float(parameters["weight_decay"]),
        global_clipnorm=GRADIENT_NORM if clip else None,
        use_ema=average > 0,
        ema_momentum=average or 0.99,
    )


def _named(loss: Figure, losses: tuple[float, float]) -> dict[str, float]:
    names = (f"train_{loss.name}", f"val_{loss.name}")
    return dict(zip(names, losses, strict=True))
