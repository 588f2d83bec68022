"""What a model builder returns, and how it becomes the model that is served.

Belongs here: the two halves of a network, joining them, and how parameters are asked for. Does not belong
here: any architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf

from airloop.errors import SpecError


@dataclass(frozen=True)
class Network:
    """A network in two halves, so that a row is encoded once and not in every epoch."""

    encoder: keras.Model
    """A dict of raw inputs by name, each [batch], to a dict of compact tensors [batch, ...]; no weights."""
    head: keras.Model
    """That dict to logits [batch, members, targets]; all the weights. Members are judged one by one in
    training, and asked together (`pooled`). The first target is the label, the others are whether the
    outcome is above each of the spec's thresholds, if it has any; they are for training alone."""

    def served(self, *, slope: float, offset: float) -> keras.Model:
        """Raw inputs to `probability`, [batch]: the sigmoid of `slope` times the logit plus `offset`."""
        logit = pooled(keras.ops.cast(self.head(self.encoder.output), "float32")[:, :, 0])
        probability = keras.ops.sigmoid(logit * slope + offset)
        return keras.Model(self.encoder.input, {"probability": keras.ops.reshape(probability, (-1,))})

    @cached_property
    def label_logits(self) -> Any:
        """The head's inputs to its members' logits of the label, float32 [batch, members]; traced once."""
        return tf.function(
            lambda inputs: tf.cast(self.head(inputs, training=False)[:, :, 0], tf.float32),
            reduce_retracing=True,
        )


def pooled(logits: Any) -> Any:
    """Members' logits [batch, members] to that of their mean probability, [batch, 1]."""
    if logits.shape[-1] == 1:
        return logits
    # By way of logarithms: a mean of probabilities would lose those close to 0 and 1.
    positive = keras.ops.logsumexp(keras.ops.log_sigmoid(logits), axis=-1, keepdims=True)
    negative = keras.ops.logsumexp(keras.ops.log_sigmoid(-logits), axis=-1, keepdims=True)
    return positive - negative


def require_parameters(parameters: Mapping[str, int | float], needed: frozenset[str], what: str) -> None:
    """Raises `SpecError` naming each of the parameters `needed` by `what` that the spec does not give."""
    if absent := sorted(needed - parameters.keys()):
        raise SpecError(
            expected=f"training.parameters to have {', '.join(sorted(needed))} for {what}",
            found=f"no {', '.join(absent)}",
            next_step="add them to the use case's spec",
        )
