"""What a signature takes and gives, and the check of a request against it.

Belongs here: the reading of a `SignatureDef`, and the checks made before a model runs. Does not belong here:
running it (`servable`) or any wire format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from serving.model_server import tensor_proto
from serving.model_server.errors import Code, ServingError
from serving.model_server.tensor_types import Array, Shape, shape_fits, shape_text, type_name, type_of

DEFAULT_SIGNATURE: Final = "serving_default"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: its type, and its shape (None for an open dimension, or for an open rank)."""

    dtype: tf.DType
    shape: Shape
    plain: np.dtype[Any] | None = None
    """NumPy's type where the input is a vector of any length, the usual case, which is told at a glance."""

    def fits(self, array: Array) -> bool:
        """Whether `array` may be fed."""
        # NumPy takes None for float64, so it is asked for first.
        if self.plain is not None and array.ndim == 1 and array.dtype == self.plain:
            return True
        return type_of(array) == self.dtype and shape_fits(array.shape, self.shape)

    def __str__(self) -> str:
        return f"{type_name(self.dtype)} of shape {shape_text(self.shape)}"


@dataclass(frozen=True)
class Signature:
    """A signature: its inputs and outputs by alias, and the values of inputs that may be left out."""

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Sequence[str]
    defaults: Mapping[str, Array]

    def complete(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """`given` with the defaults filled in, checked for names, types and shapes.

        Raises ServingError (INVALID_ARGUMENT) that names the input, what was expected and what was found.
        """
        self._check_names(given)
        complete: dict[str, Array] = {}
        for alias, spec in self.inputs.items():
            array = given.get(alias)
            if array is None:
                complete[alias] = self.defaults[alias]
                continue
            if not spec.fits(array):
                found = TensorSpec(type_of(array), array.shape)
                raise ServingError(
                    Code.INVALID_ARGUMENT,
                    f'input "{alias}" of signature "{self.name}": expected {spec}, found {found}',
                )
            complete[alias] = array
        return complete

    def select(self, output_filter: Sequence[str]) -> Sequence[str]:
        """The outputs to answer: those in `output_filter`, or all where it is empty.

        Raises ServingError (INVALID_ARGUMENT) for an output that there is not, or one named twice.
        """
        for position, alias in enumerate(output_filter):
            if alias not in self.outputs:
                raise ServingError(
                    Code.INVALID_ARGUMENT,
                    f"output tensor alias not found in signature: {alias} "
                    f"Outputs expected to be in the set {_set_text(self.outputs)}.",
                )
            if alias in output_filter[:position]:
                raise ServingError(Code.INVALID_ARGUMENT, f"duplicate output tensor alias: {alias}")
        return output_filter or self.outputs

    def _check_names(self, given: Mapping[str, Array]) -> None:
        missing = self.inputs.keys() - given.keys() - self.defaults.keys()
        extra = given.keys() - self.inputs.keys()
        if not missing and not extra:
            return
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"input size does not match signature: {len(given)}!={len(self.inputs)} "
            f"len({_set_text(given)}) != len({_set_text(self.inputs)}). Sent extra: {_set_text(extra)}. "
            f"Missing but required: {_set_text(missing)}.",
        )


def read_signature(name: str, definition: meta_graph_pb2.SignatureDef) -> Signature:
    """The signature that `definition` describes."""
    return Signature(
        name=name,
        inputs={alias: _spec(info) for alias, info in sorted(definition.inputs.items())},
        outputs=tuple(sorted(definition.outputs)),
        defaults={
            alias: tensor_proto.decode(alias, proto) for alias, proto in sorted(definition.defaults.items())
        },
    )


def _spec(info: meta_graph_pb2.TensorInfo) -> TensorSpec:
    shape, dtype = tf.TensorShape(info.tensor_shape), tf.as_dtype(info.dtype)
    sizes = None if shape.rank is None else tuple(shape.as_list())
    return TensorSpec(dtype, sizes, np.dtype(dtype.as_numpy_dtype) if sizes == (None,) else None)


def _set_text(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
