"""Dropout whose masks belong to places in the global batch, however many replicas share it.

Belongs here: masks, and telling the layers where a step is. Does not belong here: where a network drops what.

Keras' own layers draw from a generator that every replica has a copy of: all replicas drop the same units of
their rows, and a batch on two of them is trained otherwise than on one. Here a mask is a function of the
training's and the layer's seed, the step, and a row's place in the batch. Philox (Salmon et al., Parallel
Random Numbers: As Easy as 1, 2, 3, SC 2011) counts the numbers it gives, so a replica begins at its own
first row's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

import tensorflow as tf
from keras import layers

NUMBERS_A_COUNT: Final = 4
"""Of 32 bits, that Philox gives for each count."""


class _Place(NamedTuple):
    seed: int
    step: tf.Tensor
    first_row: tf.Tensor


_place: ContextVar[_Place | None] = ContextVar("place", default=None)


@contextmanager
def masks_at(seed: int, step: Any, first_row: Any) -> Iterator[None]:
    """Within, a network is called in `step` (scalar) of the training with `seed`, on the batch's rows from
    `first_row` (scalar) on."""
    token = _place.set(_Place(seed, tf.cast(step, tf.uint64), tf.cast(first_row, tf.uint64)))
    try:
        yield
    finally:
        _place.reset(token)


class PlacedDropout(layers.Dropout):  # type: ignore[misc]  # Keras publishes no types
    """`keras.layers.Dropout`, with masks of a row's place within `masks_at`; Keras' own ones elsewhere.

    Layers of one network need seeds of their own.
    """

    def call(self, inputs: Any, training: bool = False) -> Any:
        """`inputs` [batch, ...], in training with a share of `rate` set to 0 and the others scaled up."""
        place = _place.get()
        if place is None or not training or not self.rate:
            return super().call(inputs, training=training)
        units = math.prod(inputs.shape[1:])
        counts = -(-units // NUMBERS_A_COUNT)
        # Whole numbers: XLA makes other fractions of them than TensorFlow does.
        drawn = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[tf.shape(inputs)[0], counts * NUMBERS_A_COUNT],
            key=tf.constant([place.seed << 32 | self.seed], tf.uint64),
            counter=tf.stack([place.first_row * counts, place.step]),
            alg=tf.random.Algorithm.PHILOX.value,
            dtype=tf.uint32,
        )
        dropped = drawn[:, :units] < tf.constant(round(self.rate * 2**32), tf.uint32)
        kept = inputs / (1 - self.rate)
        return tf.where(tf.reshape(dropped, tf.shape(inputs)), tf.zeros_like(inputs), kept)
