"""The gRPC services: PredictionService and ModelService.

Belongs here: messages to calls and back, and errors to gRPC statuses. Does not belong here: anything that the
REST interface needs as well.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
)
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceServicer

from serving.model_server import model_info, tensor_proto
from serving.model_server.config import models_of
from serving.model_server.errors import Code, ServingError, grpc_status
from serving.model_server.manager import ModelManager
from serving.model_server.model_choice import choice_of
from serving.model_server.signatures import DEFAULT_SIGNATURE

_log = logging.getLogger(__name__)
_Service = TypeVar("_Service")
_Response = TypeVar("_Response")

UNSUPPORTED_METHOD: Final = (
    "{method} is not implemented by this model server: it serves Predict only; call Predict with the same "
    "signature, or use TensorFlow Serving"
)


def _answered(
    method: Callable[[_Service, Any], _Response],
) -> Callable[[_Service, Any, grpc.ServicerContext], _Response]:
    """`method` as gRPC calls it: a ServingError becomes its status, anything else INTERNAL."""

    @functools.wraps(method)
    def answer(self: _Service, request: Any, context: grpc.ServicerContext) -> _Response:
        try:
            return method(self, request)
        except ServingError as error:
            failure = error
        except Exception as error:
            _log.exception("%s failed unexpectedly", method.__name__)
            failure = ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
        context.abort(*grpc_status(failure))
        raise AssertionError("abort never returns")

    return answer


class PredictionService(PredictionServiceServicer):  # type: ignore[misc] # untyped stubs
    """Predictions and signatures."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager

    @_answered
    def Predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Run one signature of one version; the answer names the version that ran."""
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        response = predict_pb2.PredictResponse()
        with self._manager.lease(choice_of(request)) as servable:
            signature = servable.signatures.get(name)
            if signature is None:
                raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
            inputs = {alias: tensor_proto.decode(alias, proto) for alias, proto in request.inputs.items()}
            outputs = servable.predict(signature, inputs, tuple(request.output_filter))
            response.model_spec.name = servable.name
            response.model_spec.version.value = servable.version
        response.model_spec.signature_name = name
        for alias, array in outputs.items():
            response.outputs[alias].CopyFrom(tensor_proto.encode(array))
        return response

    @_answered
    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures of one version."""
        return model_info.model_metadata(self._manager, choice_of(request), tuple(request.metadata_field))

    @_answered
    def Classify(self, request: Any) -> Any:
        """Not served: UNIMPLEMENTED."""
        raise _unsupported("Classify")

    @_answered
    def Regress(self, request: Any) -> Any:
        """Not served: UNIMPLEMENTED."""
        raise _unsupported("Regress")

    @_answered
    def MultiInference(self, request: Any) -> Any:
        """Not served: UNIMPLEMENTED."""
        raise _unsupported("MultiInference")


class ModelService(model_service_pb2_grpc.ModelServiceServicer):  # type: ignore[misc] # untyped stubs
    """The state of the models, and changes to what is served."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager

    @_answered
    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """The state of one or of every version of a model."""
        return model_info.model_status(self._manager, choice_of(request))

    @_answered
    def HandleReloadConfigRequest(
        self, request: model_management_pb2.ReloadConfigRequest
    ) -> model_management_pb2.ReloadConfigResponse:
        """Serve exactly what the request lists; answers when that is available or has failed."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise ServingError(
                Code.INVALID_ARGUMENT,
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported",
            )
        self._manager.reload(models_of(request.config))
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = Code.OK.value
        return response


def _unsupported(method: str) -> ServingError:
    return ServingError(Code.UNIMPLEMENTED, UNSUPPORTED_METHOD.format(method=method))
