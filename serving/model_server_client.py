"""A client of the model server, over TensorFlow Serving's gRPC API.

Belongs here: the calls, their time limits, and tensors to and from plain Python values. Does not belong
here: what to serve (`model_config`), or what an answer means to a client of the gateway.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import grpc
from opentelemetry.trace import SpanKind

from airloop.errors import SettingsError
from airloop.prediction_request import InputValue
from airloop.settings import Settings
from airloop.traces import carried, span
from airloop.use_cases.spec import UseCase
from serving.tf_serving_api import (
    DT_FLOAT,
    DT_INT64,
    DT_STRING,
    GetModelMetadataRequest,
    GetModelStatusRequest,
    ModelServerConfig,
    ModelServiceStub,
    ModelVersionStatus,
    PredictionServiceStub,
    PredictRequest,
    ReloadConfigRequest,
    SignatureDefMap,
    TensorProto,
)

CHAMPION: Final = "champion"
"""Label of the version that takes the traffic."""
PREVIOUS: Final = "previous"
"""Label of the version that served before it, kept loaded so that a rollback is one label away."""
AVAILABLE: Final = "AVAILABLE"
END: Final = "END"
OUTPUT: Final = "probability"
SIGNATURE: Final = "serving_default"

# gRPC's own retries, with its own budget: once half of the tokens are spent, none is retried; a failure costs
# one, and a good answer brings back a tenth. Only Predict, which changes nothing, and only a server that is
# not there or is full: a late one would be later still.
_RETRIES: Final = {
    "methodConfig": [
        {
            "name": [{"service": "tensorflow.serving.PredictionService", "method": "Predict"}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1},
}
_CHANNEL_OPTIONS: Final = (
    ("grpc.service_config", json.dumps(_RETRIES)),
    # A model server that comes back is found again within a second; gRPC would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
)
_PREDICT: Final = "tensorflow.serving.PredictionService/Predict"
_RPC: Final = {"rpc.system": "grpc"}
_DOWN: Final = (grpc.StatusCode.UNAVAILABLE,)
_LATE: Final = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class ModelServerDown(Exception):
    """The model server does not answer; the same call may succeed later."""


class ModelServerLate(Exception):
    """The model server did not answer within the time limit; the same call may succeed later."""


class ModelServerRefused(Exception):
    """The model server refused the call; `code` is its gRPC status, `message` its reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Prediction:
    """Probabilities, one per row, and the version that computed them."""

    version: int
    probability: tuple[float, ...]


@dataclass(frozen=True)
class VersionState:
    """What the model server says about one version of a model."""

    state: str
    """START, LOADING, AVAILABLE, UNLOADING or END."""
    error: str
    """Why it could not be loaded; empty when nothing went wrong."""


class ModelServer:
    """One channel to the model server; calls may come from several threads at once.

    Every call raises `ModelServerDown`, `ModelServerLate` or `ModelServerRefused`.
    """

    def __init__(self, address: str, authority: bytes | None = None) -> None:
        """`authority` is the certificate (PEM) by which the server's is known; plain text without it."""
        if authority is None:
            self._channel = grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
        else:
            trusted = grpc.ssl_channel_credentials(root_certificates=authority)
            self._channel = grpc.secure_channel(address, trusted, options=_CHANNEL_OPTIONS)
        self._models = ModelServiceStub(self._channel)
        self._predictions = PredictionServiceStub(self._channel)
        self.address = address

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The deployment's model server; raises `SettingsError` when its authority cannot be read."""
        file = settings.model_server_authority
        try:
            authority = file.read_bytes() if file is not None else None
        except OSError as error:
            raise SettingsError(
                expected=f"a certificate in {file} (AIRLOOP_MODEL_SERVER_AUTHORITY)",
                found=str(error.strerror),
                next_step="name the PEM file of the authority that signed the model server's certificate",
            ) from None
        return cls(settings.model_server_address, authority)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def predict(
        self,
        use_case: UseCase,
        columns: Mapping[str, Sequence[InputValue]],
        *,
        version: int | str,
        timeout: float,
        inputs: Container[str] | None = None,
    ) -> Prediction:
        """Probabilities for `columns` (one value per row for every model input), in `timeout` seconds.

        `version` is a number, or a label; `inputs` are those that it takes, if not all of the spec's.
        """
        request = predict_request(use_case, columns, version=version, inputs=inputs)
        return self.answer(request, timeout=timeout)

    def answer(
        self, request: PredictRequest, *, timeout: float, metadata: Sequence[tuple[str, str]] = ()
    ) -> Prediction:
        """The answer to a message that `predict_request` made.

        `metadata` carries the trace on where the call has no span of its own.
        """
        with span(_PREDICT, kind=SpanKind.CLIENT, attributes=_RPC) as call:
            if call.is_recording():
                metadata = tuple(carried().items())
            found = _prediction(self._call(self._predictions.Predict, request, timeout, metadata))
            call.set_attribute("airloop.version", found.version)
            return found

    def answer_later(
        self, request: PredictRequest, done: Callable[[Prediction | Exception], None], *, timeout: float
    ) -> None:
        """Have `done` called, by a thread of gRPC's, with what `answer` would return or raise."""
        call = self._predictions.Predict.future(request, timeout=timeout)

        def finished(call: Any) -> None:
            try:
                found: Prediction | Exception = _prediction(call.result())
            except grpc.RpcError as error:
                found = self._failure(error, timeout)
            except grpc.FutureCancelledError:
                found = ModelServerLate(f"no answer from {self.address}: the call was cancelled")
            done(found)

        call.add_done_callback(finished)

    def inputs(self, name: str, version: int | str, *, timeout: float = 5.0) -> frozenset[str]:
        """The names of the inputs that `version` (a number or a label) of model `name` takes."""
        request = GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = name
        _set_version(request.model_spec, version)
        answer = self._call(self._predictions.GetModelMetadata, request, timeout)
        signatures = SignatureDefMap.FromString(answer.metadata["signature_def"].value)
        return frozenset(signatures.signature_def[SIGNATURE].inputs)

    def states(self, name: str, *, timeout: float = 5.0) -> dict[int, VersionState]:
        """The state of every version of model `name` that the server knows; empty when it knows none."""
        request = GetModelStatusRequest()
        request.model_spec.name = name
        try:
            answer = self._call(self._models.GetModelStatus, request, timeout)
        except ModelServerRefused as refusal:
            if refusal.code == grpc.StatusCode.NOT_FOUND.name:
                return {}
            raise
        return {
            item.version: VersionState(
                ModelVersionStatus.State.Name(item.state),
                item.status.error_message if item.status.error_code else "",
            )
            for item in answer.model_version_status
        }

    def labelled(self, name: str, label: str, *, timeout: float = 5.0) -> int | None:
        """The version of model `name` that answers requests for `label`; None when none does."""
        # The metadata call resolves labels and names the version; the status call does not look at labels.
        request = GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = name
        request.model_spec.version_label = label
        try:
            answer = self._call(self._predictions.GetModelMetadata, request, timeout)
        except ModelServerRefused:
            return None
        return int(answer.model_spec.version.value)

    def reload(self, config: ModelServerConfig, *, timeout: float) -> None:
        """Serve what `config` says, and nothing else; labels may name only versions that are available."""
        request = ReloadConfigRequest(config=config)
        status = self._call(self._models.HandleReloadConfigRequest, request, timeout).status
        if status.error_code:
            names = {code.value[0]: code.name for code in grpc.StatusCode}
            raise ModelServerRefused(names.get(status.error_code, "UNKNOWN"), status.error_message)

    def _call(
        self, method: Any, request: Any, timeout: float, metadata: Sequence[tuple[str, str]] = ()
    ) -> Any:
        try:
            return method(request, timeout=timeout, metadata=metadata or None)
        except grpc.RpcError as error:
            raise self._failure(error, timeout) from None

    def _failure(self, error: grpc.RpcError, timeout: float) -> Exception:
        code, details = error.code(), error.details() or ""
        if code in _DOWN:
            return ModelServerDown(f"no model server at {self.address}: {details}")
        if code in _LATE:
            return ModelServerLate(f"no answer from {self.address} in {timeout} s")
        return ModelServerRefused(code.name, details)


def predict_request(
    use_case: UseCase,
    columns: Mapping[str, Sequence[InputValue]],
    *,
    version: int | str,
    inputs: Container[str] | None = None,
) -> PredictRequest:
    """The message that asks `version` (a number or a label) for the probability of every row.

    `inputs` are the names of those that the version takes, where it is not all of the spec's.
    """
    request = PredictRequest(output_filter=[OUTPUT])
    request.model_spec.name = use_case.model_name
    request.model_spec.signature_name = SIGNATURE
    _set_version(request.model_spec, version)
    for item in use_case.inputs:
        if inputs is None or item.name in inputs:
            request.inputs[item.name].CopyFrom(_tensor(item.type, columns[item.name]))
    return request


def _set_version(spec: Any, version: int | str) -> None:
    if isinstance(version, str):
        spec.version_label = version
    else:
        spec.version.value = version


def _prediction(answer: Any) -> Prediction:
    return Prediction(answer.model_spec.version.value, _floats(answer.outputs[OUTPUT]))


def _tensor(kind: str, values: Sequence[InputValue]) -> TensorProto:
    match kind:
        case "string":
            tensor = TensorProto(dtype=DT_STRING, string_val=[str(value).encode() for value in values])
        case "double":
            tensor = TensorProto(dtype=DT_FLOAT, float_val=[float(value) for value in values])
        case _:
            tensor = TensorProto(dtype=DT_INT64, int64_val=[int(value) for value in values])
    tensor.tensor_shape.dim.add(size=len(values))
    return tensor


def _floats(tensor: TensorProto) -> tuple[float, ...]:
    """The values of a float vector, in either of the forms that a tensor message has."""
    size = 1
    for dimension in tensor.tensor_shape.dim:
        size *= dimension.size
    if tensor.tensor_content:
        return tuple(memoryview(tensor.tensor_content).cast("f"))
    values = tuple(tensor.float_val)
    # A tensor message may leave out the repetitions of its last value.
    return values + values[-1:] * (size - len(values))
