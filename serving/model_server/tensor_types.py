"""TensorFlow's data types as TensorFlow Serving names and checks them.

Belongs here: the name of a type and the shape of a tensor as errors print them. Does not belong here:
conversion of values (`tensor_proto`, `json_request`, `json_response`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Array = npt.NDArray[Any]
# The dimensions of a tensor, None for one that may be of any size; or None where even the rank is open.
Shape = Sequence[int | None] | None

# NumPy's names differ from TensorFlow's C++ names, which clients see, for these only.
_CPP_NAMES: Final = {"float32": "float", "float64": "double", "float16": "half"}


def type_name(dtype: tf.DType) -> str:
    """The name TensorFlow Serving prints, such as "float" for tf.float32."""
    return _CPP_NAMES.get(dtype.name, str(dtype.name))


def type_of(array: Array) -> tf.DType:
    """The TensorFlow type of `array`; arrays of Python objects hold byte strings."""
    return tf.string if array.dtype.kind in "OSU" else tf.as_dtype(array.dtype)


def shape_text(shape: Shape) -> str:
    """A shape as TensorFlow Serving prints it: [-1,4], or [?] where the rank is open."""
    if shape is None:
        return "[?]"
    return "[" + ",".join("-1" if size is None else str(size) for size in shape) + "]"


def shape_fits(shape: Sequence[int], expected: Shape) -> bool:
    """Whether a tensor of `shape` may be fed where `expected` is asked for."""
    if expected is None:
        return True
    return len(shape) == len(expected) and all(
        wanted is None or wanted == size for size, wanted in zip(shape, expected, strict=True)
    )


def object_array(values: list[bytes], shape: Sequence[int]) -> Array:
    """Byte strings as an array of objects: NumPy's own string type would drop trailing zero bytes."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(tuple(shape))
