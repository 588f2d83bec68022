"""Status and metadata, on both protocols."""

from __future__ import annotations

from tensorflow_serving.apis import get_model_metadata_pb2

from tests.serving.model_server.clients import Client


def test_status_lists_every_version_highest_first_in_both_protocols(served: Client) -> None:
    expected = [
        {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        for version in ("2", "1")
    ]
    assert served.get("/v1/models/delay") == (200, {"model_version_status": expected})
    assert list(served.states("delay").items()) == [(2, "AVAILABLE"), (1, "AVAILABLE")]


def test_status_of_one_version(served: Client) -> None:
    status, answer = served.get("/v1/models/delay/versions/1")
    assert status == 200
    assert [entry["version"] for entry in answer["model_version_status"]] == ["1"]
    assert [entry.version for entry in served.status("delay", 1).model_version_status] == [1]


def test_status_does_not_look_at_a_label(served: Client) -> None:
    assert served.get("/v1/models/delay/labels/stable") == served.get("/v1/models/delay")


def test_metadata_is_the_signatures_as_rest_prints_them(served: Client) -> None:
    status, answer = served.get("/v1/models/delay/labels/stable/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "delay", "version": "1", "signature_name": ""}
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    x = signature["inputs"]["x"]
    assert x["dtype"] == "DT_FLOAT"
    assert x["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}, {"size": "4", "name": ""}],
        "unknown_rank": False,
    }
    assert x["name"] == "serving_default_x:0"
    assert set(signature["outputs"]) == {"y"}


def test_metadata_over_grpc_carries_the_same_signatures(served: Client) -> None:
    response = served.metadata("delay", "signature_def")
    assert (response.model_spec.name, response.model_spec.version.value) == ("delay", 2)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    _, over_rest = served.get("/v1/models/delay/metadata")
    assert set(signatures.signature_def) == set(over_rest["metadata"]["signature_def"]["signature_def"])
    definition = signatures.signature_def["serving_default"]
    assert [dim.size for dim in definition.inputs["x"].tensor_shape.dim] == [-1, 4]
