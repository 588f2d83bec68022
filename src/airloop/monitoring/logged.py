"""A model's inputs and answers, from what the prediction log keeps of requests.

Belongs here: reading the log's JSON back into the inputs that the model was given, and its answers. Does not
belong here: the log (`airloop.prediction_log`), or what is made of the inputs (`monitored`).

No Python runs per row: a batch's JSON objects are read as one document.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json as arrow_json

from airloop.monitoring.monitored import watched_answer
from airloop.prediction_log.answers import numbers_of
from airloop.use_cases.spec import ModelInput, UseCase

_TYPES: Final = {
    "string": pa.string(),
    "double": pa.float64(),
    "instant": pa.int64(),
    "local_time": pa.int64(),
}


def logged_answers(use_case: UseCase, answers: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """What is watched of each answer, [rows], from the log's column."""
    target = use_case.label.target
    return watched_answer(target, numbers_of(answers, target))


def logged_inputs(
    use_case: UseCase, requests: pa.StringArray, features: pa.StringArray
) -> dict[str, np.ndarray]:
    """Every model input by name, [rows], as training has it, from the columns `request` and `features`.

    An input that a record does not have, for an older version was not given it, is missing.
    """
    asked = {
        field.name: pa.string() if field.type in ("string", "datetime") else pa.float64()
        for field in use_case.request
    }
    given = {item.name: _TYPES[item.type] for item in use_case.inputs if item.request_field is None}
    request, feature = _objects(requests, asked), _objects(features, given)
    return {
        item.name: _input(
            item, feature[item.name] if item.request_field is None else request[item.request_field]
        )
        for item in use_case.inputs
    }


def _objects(texts: pa.StringArray, types: dict[str, pa.DataType]) -> pa.Table:
    """The JSON object of each row, as columns of `types`; other members are left out."""
    schema = pa.schema(list(types.items()))
    if not len(texts):
        return schema.empty_table()
    # One line for each row: strings in JSON have no line breaks of their own.
    lines = pc.binary_join(pa.ListArray.from_arrays([0, len(texts)], pc.fill_null(texts, "{}")), "\n")[
        0
    ].as_py()
    encoded = lines.encode()
    return arrow_json.read_json(
        pa.BufferReader(encoded),
        read_options=arrow_json.ReadOptions(block_size=len(encoded) + 1),
        parse_options=arrow_json.ParseOptions(
            explicit_schema=schema, newlines_in_values=False, unexpected_field_behavior="ignore"
        ),
    ).select(list(types))


def _input(item: ModelInput, column: pa.ChunkedArray) -> np.ndarray:
    if item.type == "string":
        return np.array(pc.fill_null(column.cast(pa.string()), "").to_pylist(), object)
    if item.type == "double":
        found: np.ndarray = column.cast(pa.float64()).to_numpy().astype(np.float32)
        return found
    if pa.types.is_string(column.type):
        # The wall clock is what stands before the offset.
        local = item.type == "local_time"
        text = pc.utf8_slice_codeunits(column, 0, 19) if local else column
        column = text.cast(pa.timestamp("us") if local else pa.timestamp("us", tz="UTC")).cast(pa.int64())
        column = pc.floor(pc.divide(column.cast(pa.float64()), 1e6)).cast(pa.int64())
    seconds: np.ndarray = pc.fill_null(column.cast(pa.int64()), 0).to_numpy()
    return seconds
