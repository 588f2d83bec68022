"""Predict answers in JSON, as TensorFlow Serving writes them.

Belongs here: arrays and errors to JSON text. Does not belong here: reading requests (`json_request`), or the
JSON of protobuf messages (`model_info`).
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import tensorflow as tf

from serving.model_server.errors import Code, ServingError
from serving.model_server.json_request import Form
from serving.model_server.tensor_types import Array, type_name, type_of

_INTEGERS: Final = (tf.int8, tf.uint8, tf.int16, tf.int32, tf.int64, tf.uint32, tf.uint64)
# The digits that bring back exactly the same number, for those that six digits do not.
_EXACT_DIGITS: Final = {tf.float32: 9, tf.float64: 17}


def write_outputs(form: Form, outputs: Mapping[str, Array]) -> bytes:
    """The body that answers a request of `form` with `outputs`.

    Raises ServingError (INVALID_ARGUMENT) when the outputs do not have one first dimension in common (row
    form), or one has a type that JSON has no form for.
    """
    if not outputs:
        raise ServingError(Code.INVALID_ARGUMENT, "Cannot convert empty tensor map to JSON")
    key, value = ("predictions", _rows(outputs)) if form is Form.ROW else ("outputs", _columns(outputs))
    # A string output that is not UTF-8 goes out as the bytes it is, as from TensorFlow Serving.
    return f'{{\n    "{key}": {value}\n}}'.encode("utf-8", "surrogateescape")


def write_error(message: str) -> bytes:
    """The body that tells a client what went wrong."""
    return json.dumps({"error": message}, indent=4).encode("utf-8")


def _rows(outputs: Mapping[str, Array]) -> str:
    batch_size: int | None = None
    for alias, array in outputs.items():
        if not array.shape:
            raise ServingError(Code.INVALID_ARGUMENT, f"Tensor name: {alias} has no shape information ")
        if batch_size is not None and array.shape[0] != batch_size:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Tensor name: {alias} has inconsistent batch size: {array.shape[0]} expecting: {batch_size}",
            )
        batch_size = array.shape[0]
    columns = {alias: _nested(alias, array, depth=1) for alias, array in outputs.items()}
    if len(columns) == 1:
        ((_, rows),) = columns.items()
    else:
        rows = [_object(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
    return "[" + ", ".join(rows) + "]"


def _columns(outputs: Mapping[str, Array]) -> str:
    columns = {alias: _nested(alias, array, depth=0)[0] for alias, array in outputs.items()}
    if len(columns) == 1:
        ((_, column),) = columns.items()
        return column
    return _object(columns)


def _object(members: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(alias)}: {value}" for alias, value in members.items()) + "}"


def _nested(alias: str, array: Array, depth: int) -> list[str]:
    """The JSON of every part of `array` at `depth` dimensions down, in order."""
    tokens = _tokens(alias, array)
    for level in range(array.ndim - 1, depth - 1, -1):
        size = array.shape[level]
        groups = math.prod(array.shape[:level])
        tokens = ["[" + ", ".join(tokens[group * size : (group + 1) * size]) + "]" for group in range(groups)]
    return tokens


def _tokens(alias: str, array: Array) -> list[str]:
    dtype = type_of(array)
    values = array.ravel()
    if dtype in _EXACT_DIGITS:
        return _decimals(values, _EXACT_DIGITS[dtype])
    if dtype in _INTEGERS:
        return [str(value) for value in values.tolist()]
    if dtype == tf.bool:
        return ["true" if value else "false" for value in values.tolist()]
    if dtype == tf.string:
        return _strings(values.tolist(), as_bytes=alias.endswith("_bytes"))
    raise ServingError(
        Code.INVALID_ARGUMENT, f"Failed to write JSON value for tensor type: {type_name(dtype)}"
    )


def _decimals(values: Array, exact_digits: int) -> list[str]:
    numbers: list[float] = values.tolist()
    texts = [f"{number:.6g}" for number in numbers]
    # Six digits where they are enough: 0.2 as a 32-bit number is not to read 0.20000000298023224.
    with np.errstate(over="ignore"):
        inexact = np.array([float(text) for text in texts], dtype=values.dtype) != values
    for position in np.flatnonzero(inexact):
        texts[position] = f"{numbers[position]:.{exact_digits}g}"
    return [_decimal(text) for text in texts]


def _decimal(text: str) -> str:
    match text:
        case "nan":
            return "NaN"
        case "inf":
            return "Infinity"
        case "-inf":
            return "-Infinity"
        case _:
            # Every float looks like one, or a list of them would read as integers here and there.
            return text if "." in text or "e" in text else text + ".0"


def _strings(values: Sequence[bytes], *, as_bytes: bool) -> list[str]:
    if as_bytes:
        return [json.dumps({"b64": base64.b64encode(value).decode("ascii")}) for value in values]
    return [json.dumps(value.decode("utf-8", "surrogateescape"), ensure_ascii=False) for value in values]
