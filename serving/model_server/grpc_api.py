"""The gRPC services: PredictionService and ModelService.

Belongs here: messages to calls and back, and errors to gRPC statuses. Does not belong here: anything that the
REST interface needs as well.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import grpc
from opentelemetry.trace import Tracer
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    regression_pb2,
)
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceServicer

from serving.model_server import inference, model_info
from serving.model_server.config import models_of
from serving.model_server.errors import Code, ServingError, grpc_status
from serving.model_server.manager import ModelManager
from serving.model_server.metrics import Metrics
from serving.model_server.model_choice import choice_of
from serving.model_server.request_span import answered, lines_of, request_span
from serving.model_server.servable import Servable

_log = logging.getLogger(__name__)
_Service = TypeVar("_Service")
_Response = TypeVar("_Response")

_SERVICE: Final = "tensorflow.serving.PredictionService"
UNSUPPORTED_METHOD: Final = (
    "{method} is not implemented by this model server: it serves Predict, Classify and Regress over gRPC, "
    "and predict over REST; use one of those, or TensorFlow Serving"
)


def _answered(
    method: Callable[[_Service, Any], _Response],
) -> Callable[[_Service, Any, grpc.ServicerContext], _Response]:
    """`method` as gRPC calls it: a ServingError becomes its status, anything else INTERNAL.

    Those that run a model have a span, where the service has a tracer.
    """
    name = method.__name__
    runs = name in ("Predict", "Classify", "Regress")

    @functools.wraps(method)
    def answer(self: _Service, request: Any, context: grpc.ServicerContext) -> _Response:
        tracer = getattr(self, "_tracer", None) if runs else None
        headers = context.invocation_metadata() if tracer is not None else ()
        with request_span(tracer, f"{_SERVICE}/{name}", headers) as span:
            try:
                response = method(self, request)
                answered(span, Code.OK)
                return response
            except ServingError as error:
                failure = error
            except Exception as error:
                with lines_of(tracer, context.invocation_metadata()):
                    _log.exception("%s failed unexpectedly", name)
                failure = ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
            answered(span, failure.code)
        context.abort(*grpc_status(failure))
        raise AssertionError("abort never returns")

    return answer


class PredictionService(PredictionServiceServicer):  # type: ignore[misc] # untyped stubs
    """Predictions and signatures."""

    def __init__(self, manager: ModelManager, metrics: Metrics, tracer: Tracer | None = None) -> None:
        self._manager = manager
        self._metrics = metrics
        self._tracer = tracer

    @_answered
    def Predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Run one signature of one version; the answer names the version that ran."""
        return self._counted("Predict", request, inference.predict)

    @_answered
    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures of one version."""
        return model_info.model_metadata(self._manager, choice_of(request), tuple(request.metadata_field))

    @_answered
    def Classify(
        self, request: classification_pb2.ClassificationRequest
    ) -> classification_pb2.ClassificationResponse:
        """Run a signature that classifies examples."""
        return self._counted("Classify", request, inference.classify)

    @_answered
    def Regress(self, request: regression_pb2.RegressionRequest) -> regression_pb2.RegressionResponse:
        """Run a signature that gives a number for each example."""
        return self._counted("Regress", request, inference.regress)

    @_answered
    def MultiInference(self, request: Any) -> Any:
        """Not served: UNIMPLEMENTED."""
        raise _unsupported("MultiInference")

    def _counted(self, api: str, request: Any, answer: Callable[[Servable, Any], _Response]) -> _Response:
        """What the version that `request` asks for answers, counted and timed."""
        began = time.monotonic_ns()
        code = Code.INTERNAL
        try:
            with self._manager.lease(choice_of(request)) as servable:
                response = answer(servable, request)
            code = Code.OK
        except ServingError as error:
            code = error.code
            raise
        finally:
            elapsed = time.monotonic_ns() - began
            self._metrics.request(request.model_spec.name, api, "GRPC", code, elapsed)
        return response


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
