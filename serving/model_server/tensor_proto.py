"""Tensors as gRPC carries them: `TensorProto` to and from arrays.

Belongs here: that conversion. Does not belong here: the check of an input against a signature (`signatures`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from serving.model_server.errors import Code, ServingError
from serving.model_server.tensor_types import Array, type_of

# TensorFlow Serving answers in these typed fields, not in `tensor_content`, and there are clients that read
# them without a TensorFlow of their own.
_VALUE_FIELDS: Final[dict[tf.DType, str]] = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int32: "int_val",
    tf.int16: "int_val",
    tf.int8: "int_val",
    tf.uint8: "int_val",
    tf.uint16: "int_val",
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
    tf.float16: "half_val",
    tf.bfloat16: "half_val",
}

# By the wire number of a type: its field, and NumPy's type.
_QUICK_FIELDS: Final[dict[int, tuple[str, type[np.generic]]]] = {
    tf.float32.as_datatype_enum: ("float_val", np.float32),
    tf.float64.as_datatype_enum: ("double_val", np.float64),
    tf.int64.as_datatype_enum: ("int64_val", np.int64),
    tf.string.as_datatype_enum: ("string_val", np.object_),
}


def decode(alias: str, proto: tensor_pb2.TensorProto) -> Array:
    """The array in `proto`; byte strings come as an array of objects.

    Raises ServingError (INVALID_ARGUMENT), naming `alias`, when the values and the shape do not agree.
    """
    vector = _decode_vector(proto)
    if vector is not None:
        return vector
    shape = proto.tensor_shape
    sizes = [dim.size for dim in shape.dim]
    if shape.unknown_rank or (sizes and min(sizes) < 0):
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"tensor parsing error: {alias}: expected a fully known shape, found {sizes or '[?]'}",
        )
    try:
        return np.asarray(tf.make_ndarray(proto))
    except (ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"tensor parsing error: {alias}: {error}") from error


def _decode_vector(proto: tensor_pb2.TensorProto) -> Array | None:
    """The array of a vector of a common type whose values all stand in their field; None for any other.

    `tf.make_ndarray` takes ten times as long, which is most of a request that has many small inputs.
    """
    found = _QUICK_FIELDS.get(proto.dtype)
    sizes = proto.tensor_shape.dim
    if found is None or len(sizes) != 1:
        return None
    field, dtype = found
    values = getattr(proto, field)
    count = len(values)
    if not count or count != sizes[0].size:
        return None
    array = np.empty(count, dtype)
    if count == 1:
        array[0] = values[0]
    else:
        array[:] = values
    return array


def encode(array: Array) -> tensor_pb2.TensorProto:
    """`array` as a TensorProto whose values stand in the typed field of its type."""
    dtype = type_of(array)
    field = _VALUE_FIELDS.get(dtype)
    if field is None:
        return tf.make_tensor_proto(array)
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    # A scalar has a shape without dimensions, which is not the same as no shape.
    proto.tensor_shape.SetInParent()
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    values = array.view(np.uint16) if field == "half_val" else array
    getattr(proto, field).extend(values.ravel().tolist())
    return proto
