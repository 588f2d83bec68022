"""How these tests talk to a model server: gRPC stubs and plain HTTP, as any client would.

Belongs here: requests and configurations in short. Does not belong here: expectations.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2


class Client:
    """Both protocols of one server."""

    def __init__(self, grpc_port: int, rest_port: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{grpc_port}")
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.grpc_port = grpc_port
        self._url = f"http://127.0.0.1:{rest_port}"

    def predict(
        self,
        model: str,
        inputs: dict[str, Any],
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = "",
        output_filter: tuple[str, ...] = (),
    ) -> predict_pb2.PredictResponse:
        """PredictionService.Predict."""
        request = predict_pb2.PredictRequest(output_filter=output_filter)
        request.model_spec.name = model
        request.model_spec.signature_name = signature
        if version is not None:
            request.model_spec.version.value = version
        if label is not None:
            request.model_spec.version_label = label
        for alias, value in inputs.items():
            request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
        return self.prediction.Predict(request, timeout=20, wait_for_ready=True)

    def score(self, model: str, *, version: int | None = None, label: str | None = None) -> tuple[int, float]:
        """The version that answered a Regressor request for zeros, and its answer, which is its bias."""
        response = self.predict(model, {"x": np.zeros((1, 4), np.float32)}, version=version, label=label)
        return response.model_spec.version.value, float(tf.make_ndarray(response.outputs["y"])[0, 0])

    def states(self, model: str) -> dict[int, str]:
        """The state of every version, by name."""
        return {entry.version: _state(entry.state) for entry in self.status(model).model_version_status}

    def status(self, model: str, version: int | None = None) -> get_model_status_pb2.GetModelStatusResponse:
        """ModelService.GetModelStatus."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        if version is not None:
            request.model_spec.version.value = version
        return self.models.GetModelStatus(request, timeout=20)

    def metadata(self, model: str, *fields: str) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """PredictionService.GetModelMetadata."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
        request.model_spec.name = model
        return self.prediction.GetModelMetadata(request, timeout=20)

    def reload(
        self, config: model_server_config_pb2.ModelServerConfig
    ) -> model_management_pb2.ReloadConfigResponse:
        """ModelService.HandleReloadConfigRequest."""
        request = model_management_pb2.ReloadConfigRequest(config=config)
        return self.models.HandleReloadConfigRequest(request, timeout=30)

    def get(self, path: str) -> tuple[int, Any]:
        """GET: the status, and the body read as JSON."""
        return self._send(urllib.request.Request(self._url + path))

    def text(self, path: str) -> str:
        """GET: the body of a good answer."""
        status, body = _exchange(urllib.request.Request(self._url + path))
        assert status == 200, body
        return body.decode()

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """POST: `body` as JSON, or as it is where it is bytes; the status, and the body read as JSON."""
        status, text = self.post_raw(path, body)
        return status, json.loads(text)

    def post_raw(self, path: str, body: Any) -> tuple[int, bytes]:
        """POST, the answer's bytes as they came."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return _exchange(urllib.request.Request(self._url + path, data=data, method="POST"))

    def _send(self, request: urllib.request.Request) -> tuple[int, Any]:
        status, text = _exchange(request)
        return status, json.loads(text)


def _exchange(request: urllib.request.Request) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def _state(number: int) -> str:
    return str(get_model_status_pb2.ModelVersionStatus.State.Name(number))


def config(*models: tuple[str, Path, dict[str, Any]]) -> model_server_config_pb2.ModelServerConfig:
    """A configuration of (name, base path, {"latest": 2} or {"all": True} or {"specific": [1]}, "labels")."""
    message = model_server_config_pb2.ModelServerConfig()
    message.model_config_list.SetInParent()
    for name, base_path, options in models:
        entry = message.model_config_list.config.add(
            name=name, base_path=str(base_path), model_platform="tensorflow"
        )
        if "latest" in options:
            entry.model_version_policy.latest.num_versions = options["latest"]
        if "all" in options:
            entry.model_version_policy.all.SetInParent()
        if "specific" in options:
            entry.model_version_policy.specific.versions.extend(options["specific"])
        for label, version in options.get("labels", {}).items():
            entry.version_labels[label] = version
    return message


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether `condition` comes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()
