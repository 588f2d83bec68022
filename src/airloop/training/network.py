"""What a model builder returns, and how it becomes the model that is served.

Belongs here: the two halves of a network, joining them, and how parameters are asked for. Does not belong
here: any architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import keras

from airloop.errors import SpecError


@dataclass(frozen=True)
class Network:
    """A network in two halves, so that a row is encoded once and not in every epoch."""

    encoder: keras.Model
    """A dict of raw inputs by name, each [batch], to a dict of compact tensors [batch, ...]; no weights."""
    head: keras.Model
    """That dict to a logit [batch, 1]; all the weights."""

    def served(self, *, slope: float, offset: float) -> keras.Model:
        """Raw inputs to `probability`, [batch]: the sigmoid of `slope` times the logit plus `offset`."""
        logit = keras.ops.cast(self.head(self.encoder.output), "float32")
        probability = keras.ops.sigmoid(logit * slope + offset)
        return keras.Model(self.encoder.input, {"probability": keras.ops.reshape(probability, (-1,))})


def require_parameters(parameters: Mapping[str, int | float], needed: frozenset[str], what: str) -> None:
    """Raises `SpecError` naming each of the parameters `needed` by `what` that the spec does not give."""
    if absent := sorted(needed - parameters.keys()):
        raise SpecError(
            expected=f"training.parameters to have {', '.join(sorted(needed))} for {what}",
            found=f"no {', '.join(absent)}",
            next_step="add them to the use case's spec",
        )
