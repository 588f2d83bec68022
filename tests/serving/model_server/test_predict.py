"""Predictions: the same answers over gRPC, over REST, and from the SavedModel itself."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tests.serving.model_server.clients import Client

_X = [[1.0, 2.0, 3.0, 4.0], [0.1, 0.0, -5.5, 1e-3]]
_ROWS = [
    {"carrier": "UA", "position": [1.5, 2.0], "hour": 5, "delayed": True},
    {"carrier": "Zürich", "position": [0.25, 0.5], "hour": -1, "delayed": False},
]
_COLUMNS = {key: [row[key] for row in _ROWS] for key in _ROWS[0]}


def test_grpc_rest_and_the_saved_model_agree(served: Client, saved: dict[str, Path]) -> None:
    direct = tf.saved_model.load(str(saved["bias2"])).signatures["serving_default"](x=tf.constant(_X))["y"]
    over_grpc = tf.make_ndarray(served.predict("delay", {"x": np.array(_X, np.float32)}).outputs["y"])
    status, over_rest = served.post("/v1/models/delay:predict", {"instances": _X})
    assert status == 200
    np.testing.assert_array_equal(over_grpc, direct.numpy())
    np.testing.assert_array_equal(np.array(over_rest["predictions"], np.float32), direct.numpy())


def test_the_answer_names_the_version_and_signature_that_ran(served: Client) -> None:
    response = served.predict("delay", {"x": np.zeros((1, 4), np.float32)}, label="stable")
    assert response.model_spec.name == "delay"
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "serving_default"
    assert response.model_spec.WhichOneof("version_choice") == "version"


def test_versions_and_labels_choose_what_answers_on_both_protocols(served: Client) -> None:
    assert served.score("delay") == (2, 2.0)
    assert served.score("delay", version=1) == (1, 1.0)
    assert served.score("delay", label="canary") == (2, 2.0)
    answers = {
        path: served.post(f"/v1/models/delay{path}:predict", {"instances": [[0, 0, 0, 0]]})
        for path in ("", "/versions/1", "/versions/2", "/labels/stable", "/labels/canary")
    }
    assert answers == {
        "": (200, {"predictions": [[2.0]]}),
        "/versions/1": (200, {"predictions": [[1.0]]}),
        "/versions/2": (200, {"predictions": [[2.0]]}),
        "/labels/stable": (200, {"predictions": [[1.0]]}),
        "/labels/canary": (200, {"predictions": [[2.0]]}),
    }


def test_one_input_may_come_as_bare_values_or_by_name_in_both_forms(served: Client) -> None:
    for body in ({"instances": _X}, {"instances": [{"x": row} for row in _X]}):
        assert served.post("/v1/models/delay:predict", body)[1].keys() == {"predictions"}
    bare = served.post("/v1/models/delay:predict", {"inputs": _X})
    named = served.post("/v1/models/delay:predict", {"inputs": {"x": _X}})
    assert bare == named
    assert bare[1].keys() == {"outputs"}
    assert np.array(bare[1]["outputs"]).shape == (2, 1)


def test_several_inputs_and_outputs_come_as_one_object_per_row(served: Client) -> None:
    status, answer = served.post("/v1/models/everything:predict", {"instances": _ROWS})
    assert status == 200
    assert answer["predictions"] == [
        {
            "greeting": "hello UA",
            "raw_bytes": {"b64": base64.b64encode(b"UA").decode()},
            "total": 3.5,
            "next_hour": 6,
            "on_time": False,
        },
        {
            "greeting": "hello Zürich",
            "raw_bytes": {"b64": base64.b64encode("Zürich".encode()).decode()},
            "total": 0.75,
            "next_hour": 0,
            "on_time": True,
        },
    ]


def test_several_inputs_and_outputs_come_as_one_array_per_name_in_columns(served: Client) -> None:
    status, answer = served.post("/v1/models/everything:predict", {"inputs": _COLUMNS})
    assert status == 200
    assert answer["outputs"]["greeting"] == ["hello UA", "hello Zürich"]
    assert answer["outputs"]["total"] == [3.5, 0.75]
    assert answer["outputs"]["on_time"] == [False, True]


def test_every_type_travels_over_grpc_in_its_typed_field(served: Client) -> None:
    inputs = {
        "carrier": np.array([b"UA", b"a\x00b\x00"], object),
        "position": np.array([[1.5, 2.0], [0.25, 0.5]], np.float32),
        "hour": np.array([5, 2**40], np.int64),
        "delayed": np.array([True, False]),
    }
    outputs = served.predict("everything", inputs).outputs
    assert list(outputs["greeting"].string_val) == [b"hello UA", b"hello a\x00b\x00"]
    assert list(outputs["total"].float_val) == [3.5, 0.75]
    assert list(outputs["next_hour"].int64_val) == [6, 2**40 + 1]
    assert list(outputs["on_time"].bool_val) == [False, True]
    assert [dim.size for dim in outputs["total"].tensor_shape.dim] == [2]


def test_base64_strings_are_bytes(served: Client) -> None:
    encoded = base64.b64encode(b"\xff\x00\xfe").decode()
    body: dict[str, Any] = {
        "signature_name": "length",
        "instances": [{"b64": encoded}, "plain", {"b64": encoded.rstrip("=")}],
    }
    assert served.post("/v1/models/everything:predict", body) == (200, {"predictions": [3, 5, 3]})
    body = {"signature_name": "length", "inputs": {"text": [{"b64": encoded}]}}
    assert served.post("/v1/models/everything:predict", body) == (200, {"outputs": [3]})


def test_a_string_output_that_is_not_utf8_keeps_its_bytes(served: Client) -> None:
    row = {**_ROWS[0], "carrier": {"b64": base64.b64encode(b"\xff").decode()}}
    status, text = served.post_raw("/v1/models/everything:predict", {"instances": [row]})
    assert status == 200
    assert b'"hello \xff"' in text


def test_floats_are_written_as_tensorflow_serving_writes_them(served: Client) -> None:
    values = "[0.2, 3, 16777217, 1e20, 1e-5, 0.1234567, NaN, Infinity, -Infinity]"
    body = b'{"signature_name": "scalars", "inputs": {"a": 0.1, "b": 0.2}}'
    assert served.post_raw("/v1/models/everything:predict", body)[1] == (
        b'{\n    "outputs": 0.30000000000000004\n}'
    )
    body = f'{{"signature_name": "logarithm", "inputs": {values}}}'.encode()
    status, text = served.post_raw("/v1/models/everything:predict", body)
    assert status == 200
    answer = json.loads(text)["outputs"]
    assert b"NaN" in text
    assert b"Infinity" in text
    np.testing.assert_allclose(answer[:4], np.log([0.2, 3, 16777217, 1e20]), rtol=1e-6)
    assert np.isnan([answer[6], answer[8]]).all()
    assert np.isposinf(answer[7])
    zero = served.post_raw("/v1/models/everything:predict", b'{"signature_name":"logarithm","inputs":[0,1]}')
    assert zero == (200, b'{\n    "outputs": [-Infinity, 0.0]\n}')


def test_an_input_of_any_rank_takes_any_shape(served: Client) -> None:
    nested: Any = [[[1, 1], [1, 1]], [[1, 1], [1, 1]]]
    zeros = [[[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]
    for key, answer in (("inputs", "outputs"), ("instances", "predictions")):
        body = {"signature_name": "logarithm", key: nested}
        assert served.post("/v1/models/everything:predict", body) == (200, {answer: zeros})
    body = {"signature_name": "logarithm", "inputs": [[], []]}
    assert served.post("/v1/models/everything:predict", body) == (200, {"outputs": [[], []]})


def test_an_output_filter_is_honoured(served: Client) -> None:
    inputs = {
        "carrier": np.array([b"UA"], object),
        "position": np.ones((1, 2), np.float32),
        "hour": np.array([1], np.int64),
        "delayed": np.array([True]),
    }
    response = served.predict("everything", inputs, output_filter=("total", "on_time"))
    assert set(response.outputs) == {"total", "on_time"}


def test_a_single_value_fills_its_shape_as_tensor_protos_allow(served: Client) -> None:
    proto = tf.make_tensor_proto(0.5, dtype=tf.float32, shape=[3, 4])
    assert len(proto.float_val) == 1
    response = served.predict("delay", {"x": tf.make_ndarray(proto)})
    assert list(response.outputs["y"].float_val) == [7.0, 7.0, 7.0]
