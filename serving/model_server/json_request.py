"""Predict requests in JSON: the two published forms, read into arrays.

Belongs here: parsing a body and building the input arrays that a signature asks for. Does not belong here:
the check of shapes against the signature (`signatures`), or answers (`json_response`).
"""

from __future__ import annotations

import base64
import binascii
import enum
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import tensorflow as tf

from serving.model_server.errors import Code, ServingError
from serving.model_server.signatures import TensorSpec
from serving.model_server.tensor_types import Array, object_array, type_name

_DEBUG_LIMIT: Final = 256
_INTEGERS: Final = (tf.int8, tf.uint8, tf.int16, tf.int32, tf.int64, tf.uint32, tf.uint64)
_TYPE_NAMES: Final = {
    type(None): "Null",
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
}


class Form(enum.Enum):
    """How the values lie: one object or value per example, or one array per input."""

    ROW = "instances"
    COLUMN = "inputs"


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`; NaN and Infinity are numbers, and what follows the object is ignored.

    Raises ServingError (INVALID_ARGUMENT) for anything else.
    """
    try:
        text = body.decode("utf-8").lstrip()
        if not text:
            raise _invalid("JSON Parse error: The document is empty")
        document, _ = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        raise _invalid(f"JSON Parse error: Invalid value. {error.msg} at offset: {error.pos}") from error
    except (ValueError, RecursionError) as error:
        raise _invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise _invalid(f"JSON Value: {_debug(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """The signature that the request names, or "" for the default one.

    Raises ServingError (INVALID_ARGUMENT) when it is not a string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise _invalid(
            f"JSON Value: {_debug(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return name


def read_inputs(
    document: Mapping[str, Any], specs: Mapping[str, TensorSpec]
) -> tuple[Form, dict[str, Array]]:
    """The form of the request, and its inputs by alias, of the types in `specs`.

    Raises ServingError: INVALID_ARGUMENT when the values do not have those types or do not form regular
    arrays, UNIMPLEMENTED for a type that JSON has no form for (in the row form INVALID_ARGUMENT as well).
    """
    if "instances" in document and "inputs" in document:
        raise _invalid(
            f"JSON Value: {_debug(document)} Not formatted correctly expecting only one of 'inputs' or "
            "'instances' keys to exist "
        )
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise _invalid(f"JSON Value: {_debug(document)} Expecting 'instances' to be an list/array")
        if not instances:
            raise _invalid(f"JSON Value: {_debug(document)} No values in 'instances' array")
        return Form.ROW, _read_rows(instances, specs)
    if "inputs" in document:
        return Form.COLUMN, _read_columns(document["inputs"], specs)
    raise _invalid("Missing 'inputs' or 'instances' key")


def _read_columns(value: Any, specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    if not _is_named(value):
        if len(specs) > 1:
            raise _invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required "
                "as per tensorinfo_map"
            )
        return {alias: _to_array(value, spec.dtype) for alias, spec in specs.items()}
    for alias in specs:
        if alias not in value:
            raise _invalid(f"Missing named input: {alias} in 'inputs' object.")
    return {alias: _to_array(value[alias], spec.dtype) for alias, spec in specs.items()}


def _read_rows(instances: list[Any], specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    if not isinstance(instances[0], dict) and len(specs) > 1:
        raise _invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required "
            "as per tensorinfo_map"
        )
    # All rows at once: reading them one by one costs many times more, and is needed only to say which row
    # is at fault.
    try:
        if not _is_named(instances[0]):
            (alias, spec), *_ = specs.items()
            return {alias: _to_array(_plain_rows(instances), spec.dtype)}
        if all(_is_named(row) and row.keys() == specs.keys() for row in instances):
            return {
                alias: _to_array([row[alias] for row in instances], spec.dtype)
                for alias, spec in specs.items()
            }
    except ServingError:
        _explain_rows(instances, specs)
        raise
    _explain_rows(instances, specs)
    raise _invalid("'instances' list is not formatted correctly")


def _plain_rows(instances: list[Any]) -> list[Any]:
    for position, row in enumerate(instances):
        if _is_named(row):
            raise _invalid(f"Expecting value/list but got object at item {position} of input list")
    return instances


def _explain_rows(instances: list[Any], specs: Mapping[str, TensorSpec]) -> None:
    """Raise the error of the first row that is at fault."""
    named = _is_named(instances[0])
    first_shapes: dict[str, tuple[int, ...]] = {}
    for position, row in enumerate(instances):
        if named != _is_named(row):
            expected, found = ("object", "list") if named else ("value/list", "object")
            raise _invalid(f"Expecting {expected} but got {found} at item {position} of input list")
        for alias, value in row.items() if named else [(next(iter(specs)), row)]:
            key = f" key: {alias}" if named else ""
            try:
                if alias not in specs:
                    raise _invalid(f"JSON object: does not have named input: {alias}")
                array = _to_array(value, specs[alias].dtype)
                _check_like_first(first_shapes.setdefault(alias, array.shape), array)
            except ServingError as error:
                raise _invalid(
                    f"Failed to process element: {position}{key} of 'instances' list. Error: {error}"
                ) from error
        if named and row.keys() != specs.keys():
            raise _invalid(
                f"Failed to process element: {position} of 'instances' list. JSON object: {_debug(row)} "
                f"keys must be equal to: {','.join(sorted(specs))}"
            )


def _check_like_first(first: tuple[int, ...], array: Array) -> None:
    if np.prod(first, dtype=np.int64) != array.size:
        raise _invalid(f"Expecting tensor size: {np.prod(first, dtype=np.int64)} but got: {array.size}")
    if first != array.shape:
        raise _invalid(f"Expecting shape {list(first)} but got: {list(array.shape)}")


def _to_array(value: Any, dtype: tf.DType) -> Array:
    shape: list[int] = []
    item = value
    while isinstance(item, list):
        shape.append(len(item))
        item = item[0] if item else None
    return _from_leaves(_flatten(value, shape), shape, dtype)


def _flatten(value: Any, shape: Sequence[int]) -> list[Any]:
    items = [value]
    for level, size in enumerate(shape):
        below: list[Any] = []
        for item in items:
            if not isinstance(item, list):
                raise _invalid(
                    f"JSON Value: {_debug(item)} found at incorrect level: {level + 1} in the JSON DOM. "
                    f"Expected at level: {len(shape)}"
                )
            if len(item) != size:
                raise _invalid(
                    f"Encountered list at unexpected size: {len(item)} at level: {level} "
                    f"expected size: {size}"
                )
            below.extend(item)
        items = below
    if list in set(map(type, items)):
        raise _invalid(f"Encountered list at unexpected level: {len(shape)} expected < {len(shape)}")
    return items


def _from_leaves(leaves: list[Any], shape: Sequence[int], dtype: tf.DType) -> Array:
    if dtype == tf.string:
        return object_array([_to_bytes(leaf) for leaf in leaves], shape)
    if dtype in (tf.float32, tf.float64):
        _check_types(leaves, {int, float}, dtype)
    elif dtype in _INTEGERS:
        _check_types(leaves, {int}, dtype)
        bounds = np.iinfo(dtype.as_numpy_dtype)
        for leaf in (min(leaves), max(leaves)) if leaves else ():
            if not bounds.min <= leaf <= bounds.max:
                raise _type_error(leaf, dtype)
    elif dtype == tf.bool:
        _check_types(leaves, {bool}, dtype)
    else:
        shown = _debug(leaves[0]) if leaves else "[]"
        raise ServingError(
            Code.UNIMPLEMENTED, f"Conversion of JSON Value: {shown} to type: {type_name(dtype)}"
        )
    try:
        with np.errstate(over="ignore"):
            return np.array(leaves, dtype=dtype.as_numpy_dtype).reshape(tuple(shape))
    except OverflowError as error:
        raise _invalid(f"JSON Parse error: Number too big to be stored in double. {error}") from error


def _check_types(leaves: list[Any], allowed: set[type], dtype: tf.DType) -> None:
    if not set(map(type, leaves)) <= allowed:
        raise _type_error(next(leaf for leaf in leaves if type(leaf) not in allowed), dtype)


def _to_bytes(leaf: Any) -> bytes:
    if isinstance(leaf, str):
        try:
            return leaf.encode("utf-8")
        except UnicodeEncodeError as error:
            raise _invalid(f"JSON Parse error: The surrogate pair in string is invalid. {error}") from error
    if not isinstance(leaf, dict):
        raise _type_error(leaf, tf.string)
    if not _is_base64(leaf):
        raise _invalid(f"JSON Value: {_debug(leaf)} not formatted correctly for base64 data")
    encoded = "".join(leaf["b64"].split())
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid("Unable to base64 decode") from error


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _debug(value: Any) -> str:
    return json.dumps(value)[:_DEBUG_LIMIT]


def _type_error(value: Any, dtype: tf.DType) -> ServingError:
    found = str(value) if isinstance(value, bool) else _TYPE_NAMES[type(value)]
    return _invalid(f"JSON Value: {_debug(value)} Type: {found} is not of expected type: {type_name(dtype)}")


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
