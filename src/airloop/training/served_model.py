"""The SavedModel: its signature, writing it, and asking it as a server would.

Belongs here: the boundary between training and serving, with all preprocessing inside. Does not belong here:
what the model computes, or the model server.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from airloop.errors import RegistryError
from airloop.training.examples import Columns
from airloop.training.network import OUTPUT
from airloop.use_cases.spec import UseCase

SIGNATURE: Final = "serving_default"
BATCH: Final = 8192
_DTYPES: Final = {
    "string": tf.string,
    "double": tf.float32,
    "instant": tf.int64,
    "local_time": tf.int64,
}


def input_signature(use_case: UseCase) -> dict[str, tf.TensorSpec]:
    """The serving signature's inputs: every model input by name, each a vector of any length."""
    return {item.name: tf.TensorSpec([None], _DTYPES[item.type], name=item.name) for item in use_case.inputs}


def export(model: keras.Model, use_case: UseCase, folder: Path) -> None:
    """Write `model` (raw inputs to answers) as a SavedModel with the signature `serving_default`.

    The signature calls an answer as the label's kind does (`airloop.use_cases.target`).
    """
    output = use_case.label.target.output
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        SIGNATURE,
        lambda inputs: {output: model(inputs, training=False)[OUTPUT]},
        input_signature=[input_signature(use_case)],
    )
    archive.write_out(str(folder), verbose=False)


class ServedModel:
    """A SavedModel, asked through its serving signature as the model server asks it."""

    def __init__(self, folder: Path) -> None:
        """Load it; raises `RegistryError` when it cannot be loaded or has no usable signature."""
        try:
            self._loaded = tf.saved_model.load(str(folder))
            self._serve = self._loaded.signatures[SIGNATURE]
        except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
            raise RegistryError(
                expected=f"a SavedModel with the signature {SIGNATURE}",
                found=f"{type(error).__name__}: {error}".splitlines()[0],
                next_step="train the model again; its artifact is damaged",
            ) from None
        self.inputs: Mapping[str, tf.TensorSpec] = self._serve.structured_input_signature[1]
        self.output: str = next(iter(self._serve.structured_outputs))

    def differences(self, use_case: UseCase) -> tuple[str, ...]:
        """How the signature departs from what the present spec can give it; empty when rows of the
        spec's inputs can be asked.

        An input that the spec has and the model does not know is no obstacle: it is left out.
        """
        given = input_signature(use_case)
        problems = [f"input {name!r} is not in the spec" for name in self.inputs if name not in given]
        problems += [
            f"input {name!r} is {spec.dtype.name}, the spec gives {given[name].dtype.name}"
            for name, spec in self.inputs.items()
            if name in given and spec.dtype != given[name].dtype
        ]
        if (output := use_case.label.target.output) not in self._serve.structured_outputs:
            problems.append(f"no output {output!r}")
        return tuple(problems)

    def predict(self, columns: Columns) -> np.ndarray:
        """The answer to every row, float32 [rows], or [rows, numbers of an answer]; `columns` may hold more
        than the model's inputs."""
        rows = len(next(iter(columns.values())))
        parts = [np.zeros((0, *self._serve.structured_outputs[self.output].shape[1:]), np.float32)]
        for start in range(0, rows, BATCH):
            batch = {
                name: tf.constant(columns[name][start : start + BATCH], spec.dtype)
                for name, spec in self.inputs.items()
            }
            parts.append(self._serve(**batch)[self.output].numpy())
        return np.concatenate(parts)


def recorded_requests(model: ServedModel, columns: Columns) -> str:
    """`columns` and what the served model answers to them, as JSON; NaN as null.

    `{"inputs": {name: [...]}, <output>: [...]}`
    """
    document = {
        "inputs": {name: [_plain(value) for value in values.tolist()] for name, values in columns.items()},
        model.output: model.predict(columns).astype(float).tolist(),
    }
    return json.dumps(document, allow_nan=False)


def _plain(value: Any) -> str | int | float | None:
    plain: str | int | float = value
    return None if isinstance(value, float) and not math.isfinite(value) else plain
