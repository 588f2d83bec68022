"""Fitting a network: gradient descent with early stopping, the same each time it is run on one machine.

Belongs here: the optimiser, the input pipeline and the seeds. Does not belong here: the architecture, MLflow,
or reading data.

Two runs on one machine with the same threads give the same weights: every seed is set and TensorFlow is told
to be deterministic. Another processor, or another number of threads, may round differently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from airloop.training.examples import Columns
from airloop.training.network import Network, require_parameters

ENCODING_BATCH: Final = 8192
GRADIENT_NORM: Final = 1.0
WARM_UP_SHARE: Final = 0.1
PARAMETERS: Final = frozenset(
    {"learning_rate", "weight_decay", "weight_average", "batch_size", "max_epochs", "patience_epochs"}
)

Tensors = dict[str, np.ndarray]
OnEpoch = Callable[[int, Mapping[str, float]], None]


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


def encode(network: Network, columns: Columns) -> Tensors:
    """The encoder's tensors for every row, computed once and in batches."""
    rows = len(next(iter(columns.values())))
    parts = [
        network.encoder(
            {name: tf.constant(values[start : start + ENCODING_BATCH]) for name, values in columns.items()}
        )
        for start in range(0, rows, ENCODING_BATCH)
    ]
    return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}


def logits(network: Network, encoded: Tensors) -> np.ndarray:
    """The head's logit of every row, float32 [rows]."""
    found: np.ndarray = network.head.predict(encoded, batch_size=ENCODING_BATCH, verbose=0)
    return found[:, 0]


def fit(
    network: Network,
    train: tuple[Tensors, np.ndarray],
    validation: tuple[Tensors, np.ndarray],
    parameters: Mapping[str, int | float],
    seed: int,
    on_epoch: OnEpoch,
) -> int:
    """Fit the head on encoded rows and labels; the weights of the epoch with the best validation loss stay.

    The learning rate rises over the first tenth of an epoch's steps and falls to zero along a cosine;
    `weight_average` is the momentum of an average of the weights, which is what is validated and kept
    (0: none). `on_epoch` is told each epoch's losses. Returns the number of that best epoch, from 0. Raises
    `SpecError` for parameters that are absent.
    """
    require_parameters(parameters, PARAMETERS, "fitting")
    batch, epochs = int(parameters["batch_size"]), int(parameters["max_epochs"])
    rows = len(train[1])
    batch = min(batch, rows)
    steps = rows // batch
    network.head.compile(
        optimizer=_optimiser(parameters, steps * epochs, steps),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        steps_per_execution=max(1, min(16, steps)),
        # XLA and deterministic operations exclude each other.
        jit_compile=False,
    )
    best = _BestEpoch(network.head, int(parameters["patience_epochs"]), on_epoch)
    callbacks: list[Any] = [keras.callbacks.LambdaCallback(on_epoch_end=best.after)]
    if parameters["weight_average"]:
        callbacks.insert(0, keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    network.head.fit(
        _batches(train, batch, seed),
        validation_data=_batches(validation, ENCODING_BATCH, None),
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )
    network.head.set_weights(best.weights)
    return best.epoch


def _optimiser(
    parameters: Mapping[str, int | float], steps: int, epoch_steps: int
) -> keras.optimizers.Optimizer:
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
        global_clipnorm=GRADIENT_NORM,
        use_ema=average > 0,
        ema_momentum=average or 0.99,
    )


def _batches(rows: tuple[Tensors, np.ndarray], batch: int, shuffle_seed: int | None) -> tf.data.Dataset:
    """Batches gathered from whole tensors, in an order that is drawn anew for each epoch."""
    tensors, labels = rows
    count = len(labels)
    constants = {name: tf.constant(values) for name, values in tensors.items()}
    targets = tf.constant(labels.astype(np.float32)[:, None])
    indices = tf.data.Dataset.range(count)
    if shuffle_seed is not None:
        indices = indices.shuffle(count, seed=shuffle_seed, reshuffle_each_iteration=True)
    batches = indices.batch(batch, drop_remainder=shuffle_seed is not None)
    return batches.map(
        lambda at: (
            {name: tf.gather(values, at) for name, values in constants.items()},
            tf.gather(targets, at),
        ),
        num_parallel_calls=1,
        deterministic=True,
    ).prefetch(2)


class _BestEpoch:
    """Keeps the weights of the epoch with the lowest validation loss, and stops when it stays the lowest."""

    def __init__(self, model: keras.Model, patience: int, on_epoch: OnEpoch) -> None:
        self._model = model
        self.epoch = -1
        self.weights: list[np.ndarray] = []
        self._lowest = float("inf")
        self._patience = patience
        self._on_epoch = on_epoch

    def after(self, epoch: int, logs: Mapping[str, float]) -> None:
        """What Keras calls at the end of an epoch, with the averaged weights in place."""
        losses = {
            "train_log_loss": float(logs["loss"]),
            "val_log_loss": float(logs["val_loss"]),
        }
        self._on_epoch(epoch, losses)
        if losses["val_log_loss"] < self._lowest or not self.weights:
            self._lowest, self.epoch = losses["val_log_loss"], epoch
            self.weights = self._model.get_weights()
        elif epoch - self.epoch >= self._patience:
            self._model.stop_training = True
