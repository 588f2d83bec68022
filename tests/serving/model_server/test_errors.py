"""Requests that cannot be answered: TensorFlow Serving's codes and words, on both protocols."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.serving.model_server.clients import Client

_ZEROS = np.zeros((1, 4), np.float32)
_ROW = {"carrier": "UA", "position": [1.5, 2.0], "hour": 5, "delayed": True}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ({"model": "nobody"}, "NOT_FOUND", "Servable not found for request: Latest(nobody)"),
        ({"version": 7}, "NOT_FOUND", "Servable not found for request: Specific(delay, 7)"),
        ({"label": "gold"}, "INVALID_ARGUMENT", "Unrecognized servable version label: gold"),
        ({"model": ""}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        ({"signature": "gone"}, "FAILED_PRECONDITION", 'Serving signature key "gone" not found.'),
        (
            {"inputs": {}},
            "INVALID_ARGUMENT",
            (
                "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. "
                "Missing but required: {x}."
            ),
        ),
        (
            {"inputs": {"x": _ZEROS, "z": _ZEROS}},
            "INVALID_ARGUMENT",
            (
                "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. "
                "Missing but required: {}."
            ),
        ),
        (
            {"inputs": {"x": np.zeros((1, 4), np.int64)}},
            "INVALID_ARGUMENT",
            (
                'input "x" of signature "serving_default": expected float of shape [-1,4], '
                "found int64 of shape [1,4]"
            ),
        ),
        (
            {"inputs": {"x": np.zeros((2, 3), np.float32)}},
            "INVALID_ARGUMENT",
            (
                'input "x" of signature "serving_default": expected float of shape [-1,4], '
                "found float of shape [2,3]"
            ),
        ),
        (
            {"output_filter": ("nothing",)},
            "INVALID_ARGUMENT",
            "output tensor alias not found in signature: nothing Outputs expected to be in the set {y}.",
        ),
        ({"output_filter": ("y", "y")}, "INVALID_ARGUMENT", "duplicate output tensor alias: y"),
    ],
)
def test_grpc_says_what_is_wrong(served: Client, arguments: dict[str, Any], code: str, message: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        served.predict(**{"model": "delay", "inputs": {"x": _ZEROS}, **arguments})
    assert (caught.value.code().name, caught.value.details()) == (code, message)


def test_grpc_refuses_a_tensor_whose_values_do_not_fill_its_shape(served: Client) -> None:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "delay"
    tensor = request.inputs["x"]
    tensor.dtype = 1
    tensor.tensor_content = b"\0\0\0\0"
    for size in (1, 4):
        tensor.tensor_shape.dim.add(size=size)
    with pytest.raises(grpc.RpcError) as caught:
        served.prediction.Predict(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith("tensor parsing error: x")
    tensor.tensor_shape.dim[0].size = -1
    with pytest.raises(grpc.RpcError) as caught:
        served.prediction.Predict(request)
    assert "expected a fully known shape, found [-1, 4]" in caught.value.details()


def test_grpc_refuses_a_request_without_a_model_spec(served: Client) -> None:
    for call, request in (
        (served.prediction.Predict, predict_pb2.PredictRequest()),
        (served.prediction.Classify, classification_pb2.ClassificationRequest()),
        (served.prediction.Regress, regression_pb2.RegressionRequest()),
        (served.models.GetModelStatus, get_model_status_pb2.GetModelStatusRequest()),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == "Missing ModelSpec"


def test_what_is_not_served_says_so(served: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        served.prediction.MultiInference(inference_pb2.MultiInferenceRequest())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "it serves Predict, Classify and Regress over gRPC" in caught.value.details()
    status, answer = served.post("/v1/models/delay:classify", {"examples": [{"x": 1}]})
    assert status == 501
    assert answer["error"].startswith("Classify is not implemented")


def test_a_model_that_fails_gives_tensorflows_own_error(served: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        served.predict("everything", {"index": np.array([0, 9], np.int32)}, signature="lookup")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "indices[1] = 9 is not in [0, 3)" in caught.value.details()
    assert "File " not in caught.value.details()
    status, answer = served.post(
        "/v1/models/everything:predict", {"signature_name": "lookup", "instances": [0, 9]}
    )
    assert status == 400
    assert "indices[1] = 9 is not in [0, 3)" in answer["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("nobody:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(nobody)"),
        ("delay/versions/7:predict", {"instances": [1]}, 404, "request: Specific(delay, 7)"),
        ("delay/labels/gold:predict", {"instances": [1]}, 400, "Unrecognized servable version label: gold"),
        ("delay/versions/99999999999999999999:predict", {}, 400, "Failed to convert version"),
        ("delay:explain", {"instances": [1]}, 400, "Malformed request: POST /v1/models/delay:explain"),
        ("delay", {"instances": [1]}, 400, "Malformed request: POST /v1/models/delay"),
        ("delay:predict", b"", 400, "JSON Parse error: The document is empty"),
        ("delay:predict", b"{oops", 400, "JSON Parse error: Invalid value."),
        ("delay:predict", b"\xff{}", 400, "JSON Parse error: "),
        ("delay:predict", b'{"instances": ' + b"[" * 100_000, 400, "JSON Parse error: "),
        ("delay:predict", [1], 400, "JSON Value: [1] Is not object"),
        ("delay:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
        ("delay:predict", {"instances": [1], "inputs": [1]}, 400, "expecting only one of 'inputs' or"),
        ("delay:predict", {"instances": 1}, 400, "Expecting 'instances' to be an list/array"),
        ("delay:predict", {"instances": []}, 400, "No values in 'instances' array"),
        ("delay:predict", {"signature_name": 3, "instances": [1]}, 400, "key must be a string value."),
        (
            "delay:predict",
            {"signature_name": "gone", "instances": [1]},
            400,
            'Serving signature name: "gone" not found in signature def',
        ),
        (
            "delay:predict",
            {"instances": [[1, 2, 3]]},
            400,
            (
                'input "x" of signature "serving_default": expected float of shape [-1,4], '
                "found float of shape [1,3]"
            ),
        ),
        (
            "delay:predict",
            {"instances": [[1, 2, 3, 4], [1, 2, "three", 4]]},
            400,
            (
                "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
                'JSON Value: "three" Type: String is not of expected type: float'
            ),
        ),
        (
            "delay:predict",
            {"instances": [[1, 2, 3, 4], [1, 2]]},
            400,
            (
                "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
                "Expecting tensor size: 4 but got: 2"
            ),
        ),
        ("delay:predict", {"instances": [[1, True, 3, 4]]}, 400, "Type: True is not of expected type: float"),
        ("delay:predict", {"instances": [[1, None, 3, 4]]}, 400, "Type: Null is not of expected type: float"),
        ("delay:predict", {"instances": [{"x": [1, 2, 3, 4]}, [1]]}, 400, "Expecting object but got list at"),
        ("delay:predict", {"instances": [[1], {"x": [1]}]}, 400, "Expecting value/list but got object at"),
        ("delay:predict", {"instances": [{"q": [1]}]}, 400, "JSON object: does not have named input: q"),
        ("delay:predict", {"inputs": {"q": [1]}}, 400, "Missing named input: x in 'inputs' object."),
        ("delay:predict", {"inputs": [[1, 2, 3, 4], 5]}, 400, "found at incorrect level: 2"),
        ("everything:predict", {"instances": [1]}, 400, "instances is a plain list, but expecting list of"),
        ("everything:predict", {"inputs": [1]}, 400, "inputs is a plain value/list, but expecting an object"),
        ("everything:predict", {"instances": [{"carrier": "UA"}]}, 400, "carrier,delayed,hour,position"),
        (
            "everything:predict",
            {"instances": [{**_ROW, "hour": 5.5}]},
            400,
            (
                "Failed to process element: 0 key: hour of 'instances' list. Error: INVALID_ARGUMENT: "
                "JSON Value: 5.5 Type: Number is not of expected type: int64"
            ),
        ),
        (
            "everything:predict",
            {"instances": [{**_ROW, "carrier": {"b64": "?"}}]},
            400,
            "Unable to base64 decode",
        ),
        (
            "everything:predict",
            {"instances": [{**_ROW, "hour": 2**63}]},
            400,
            "is not of expected type: int64",
        ),
        (
            "everything:predict",
            {"instances": [{**_ROW, "carrier": "\ud800"}]},
            400,
            "surrogate pair in string is invalid",
        ),
        (
            "everything:predict",
            {"signature_name": "scalars", "instances": [{"a": 1.0, "b": 2.0}]},
            400,
            'input "a" of signature "scalars": expected double of shape [], found double of shape [1]',
        ),
    ],
)
def test_rest_says_what_is_wrong(served: Client, path: str, body: Any, status: int, error: str) -> None:
    answered, answer = served.post(f"/v1/models/{path}", body)
    assert answered == status
    assert answer.keys() == {"error"}
    assert error in answer["error"]


def test_rest_row_form_needs_outputs_with_a_first_dimension(served: Client) -> None:
    body = {"signature_name": "logarithm", "inputs": 1}
    assert served.post("/v1/models/everything:predict", body) == (200, {"outputs": 0.0})


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v1/models/nobody", 404, "Could not find any versions of model nobody"),
        ("/v1/models/delay/versions/7", 404, "Could not find version 7 of model delay"),
        ("/v1/models/nobody/metadata", 404, "Servable not found for request: Latest(nobody)"),
        ("/v1/models/delay/labels/gold/metadata", 400, "Unrecognized servable version label: gold"),
        ("/v1/models", 400, "Missing model name in request."),
        ("/v1/other", 400, "Malformed request: GET /v1/other"),
        ("/v1/models/delay:predict", 400, "Malformed request: GET /v1/models/delay:predict"),
        ("/", 404, "Not Found: /; expected a path under /v1/models"),
    ],
)
def test_rest_get_says_what_is_wrong(served: Client, path: str, status: int, error: str) -> None:
    assert served.get(path) == (status, {"error": error})


def test_grpc_status_and_metadata_say_what_is_wrong(served: Client) -> None:
    calls: list[tuple[Any, str, str]] = [
        (lambda: served.status("nobody"), "NOT_FOUND", "Could not find any versions of model nobody"),
        (lambda: served.status("delay", 7), "NOT_FOUND", "Could not find version 7 of model delay"),
        (
            lambda: served.metadata("delay"),
            "INVALID_ARGUMENT",
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (lambda: served.metadata("delay", "x"), "INVALID_ARGUMENT", "Metadata field x is not supported"),
    ]
    for call, code, message in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert (caught.value.code().name, caught.value.details()) == (code, message)
