"""What a model builder returns, and how it becomes the model that is served.

Belongs here: the two halves of a network, joining them, and how parameters are asked for. Does not belong
here: any architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import keras
import tensorflow as tf

from airloop.errors import SpecError
from airloop.training.calibration import Calibration
from airloop.training.heads import Head

OUTPUT: Final = "answer"
"""Of a network; the exported signature has the kind's own name."""


@dataclass(frozen=True)
class Network:
    """A network in two halves, so that a row is encoded once and not in every epoch."""

    encoder: keras.Model
    """A dict of raw inputs by name, each [batch], to a dict of compact tensors [batch, ...]; no weights."""
    head: keras.Model
    """That dict to numbers [batch, members, outputs]; all the weights. The first are about the label, the
    others logits of whether the outcome is above each of the spec's thresholds, if it has any; they are for
    training alone."""

    label: Head
    """What the head's numbers mean."""

    def served(self, calibration: Calibration) -> keras.Model:
        """Raw inputs to the answer, under `OUTPUT`: [batch], or [batch, numbers of an answer]."""
        found = keras.ops.cast(self.head(self.encoder.output), "float32")[:, :, : self.label.outputs]
        answer = self.label.answer(self.label.pooled(found), calibration)
        return keras.Model(self.encoder.input, {OUTPUT: answer})

    @cached_property
    def label_outputs(self) -> Any:
        """The head's inputs to its members' numbers about the label, float32 [batch, members, outputs];
        traced once."""
        return tf.function(
            lambda inputs: tf.cast(self.head(inputs, training=False)[:, :, : self.label.outputs], tf.float32),
            reduce_retracing=True,
        )


def require_parameters(parameters: Mapping[str, int | float], needed: frozenset[str], what: str) -> None:
    """Raises `SpecError` naming each of the parameters `needed` by `what` that the spec does not give."""
    if absent := sorted(needed - parameters.keys()):
        raise SpecError(
            expected=f"training.parameters to have {', '.join(sorted(needed))} for {what}",
            found=f"no {', '.join(absent)}",
            next_step="add them to the use case's spec",
        )
