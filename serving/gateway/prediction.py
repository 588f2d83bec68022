"""Predictions: requests, features, model, answers.

Belongs here: the order of those, and which failure becomes which answer. Does not belong here: HTTP routes
(`app`), and the rules of a request (`airloop.prediction_request`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from pydantic import BaseModel

from airloop.prediction_log.record import PredictionRecord
from airloop.prediction_log.spool import Spool
from airloop.prediction_request import (
    FeatureScalar,
    PredictionRequest,
    RequestError,
    assemble_inputs,
    features_in_force,
    missing_features,
    parse_batch,
    parse_request,
)
from airloop.use_cases.spec import UseCase
from serving.gateway import problems
from serving.gateway.circuit import Circuit, CircuitOpen
from serving.gateway.online_features import FeatureStoreDown, NoFeatureService, OnlineFeatures
from serving.gateway.request_context import Caller, Metrics
from serving.model_server_client import (
    CHAMPION,
    ModelServer,
    ModelServerDown,
    ModelServerLate,
    ModelServerRefused,
    Prediction,
)

MOST_INSTANCES: Final = 256
"""Requests of a batch."""
_T = TypeVar("_T")
# One JSON object per line and prediction, under a name of its own so that it can be sent elsewhere.
prediction_log: Final = logging.getLogger("airloop.predictions")


class ModelVersion(BaseModel):
    """The model that answered; its version is the one in the registry."""

    name: str
    version: int


class InstanceAnswer(BaseModel):
    """A prediction and what it was made from."""

    prediction: dict[str, float]
    """Probability, by the label's name."""
    prediction_time: datetime
    """In UTC: features are what was known then."""
    features: dict[str, FeatureScalar]
    """The feature values that the model was given; null where there was none."""
    missing_features: list[str]
    """Features without a value in force; the model was trained to do without them."""


class PredictionAnswer(InstanceAnswer):
    """One prediction."""

    request_id: str
    use_case: str
    model: ModelVersion


class BatchAnswer(BaseModel):
    """As many predictions as there were instances, in their order, all by one version."""

    request_id: str
    use_case: str
    model: ModelVersion
    predictions: list[InstanceAnswer]


@dataclass(frozen=True)
class _Predicted:
    version: int
    instances: list[InstanceAnswer]


class Predictor:
    """Makes predictions; threads may share it.

    A server that keeps failing is not asked for a moment (`Circuit`): waiting for it would take the threads
    that could tell clients so.
    """

    def __init__(
        self,
        features: OnlineFeatures,
        model_server: ModelServer,
        metrics: Metrics,
        *,
        timeout: float,
        spool: Spool | None = None,
    ) -> None:
        self._features = features
        self._model_server = model_server
        self._metrics = metrics
        self._timeout = timeout
        self._spool = spool
        self._model_circuit = Circuit("model server", (ModelServerDown, ModelServerLate))
        self._feature_circuit = Circuit("feature store", (FeatureStoreDown,))

    def predict(self, use_case: UseCase, body: bytes, caller: Caller) -> PredictionAnswer:
        """The champion's answer to a request body; raises `Problem` for every foreseen failure.

        Blocks for the feature store and the model server: call it in a thread.
        """
        begun = time.perf_counter()
        request = _parsed(lambda: parse_request(use_case, body))
        made = self._made(use_case, [request], caller)
        answer = PredictionAnswer(
            request_id=caller.request_id,
            use_case=use_case.name,
            model=ModelVersion(name=use_case.model_name, version=made.version),
            **dict(made.instances[0]),
        )
        self._record(use_case, [request], made, caller, begun)
        return answer

    def predict_batch(self, use_case: UseCase, body: bytes, caller: Caller) -> BatchAnswer:
        """The champion's answers to a batch's body, all or none; as `predict` otherwise."""
        begun = time.perf_counter()
        requests = _parsed(lambda: parse_batch(use_case, body, MOST_INSTANCES))
        made = self._made(use_case, requests, caller)
        self._record(use_case, requests, made, caller, begun)
        return BatchAnswer(
            request_id=caller.request_id,
            use_case=use_case.name,
            model=ModelVersion(name=use_case.model_name, version=made.version),
            predictions=made.instances,
        )

    def _made(self, use_case: UseCase, requests: Sequence[PredictionRequest], caller: Caller) -> _Predicted:
        in_force = self._in_force(use_case, requests)
        rows = [
            assemble_inputs(use_case, request, features)
            for request, features in zip(requests, in_force, strict=True)
        ]
        columns = {item.name: [row[item.name] for row in rows] for item in use_case.inputs}
        with self._metrics.model.labels(use_case.name).time():
            prediction = self._ask(use_case, columns, caller)
        instances = [
            InstanceAnswer(
                prediction={use_case.label.name: probability},
                prediction_time=request.prediction_time,
                features={
                    item.name: features[item.name] for item in use_case.inputs if item.request_field is None
                },
                missing_features=list(missing_features(use_case, features)),
            )
            for request, features, probability in zip(requests, in_force, prediction.probability, strict=True)
        ]
        for instance in instances:
            self._metrics.count_prediction(use_case.name, prediction.version, instance.missing_features)
        return _Predicted(prediction.version, instances)

    def _in_force(
        self, use_case: UseCase, requests: Sequence[PredictionRequest]
    ) -> list[dict[str, FeatureScalar]]:
        """The features of each request that count at its prediction time."""
        try:
            with self._metrics.features.labels(use_case.name).time():
                stored = self._feature_circuit.call(self._features.read, use_case, requests)
            found = []
            for request, values in zip(requests, stored, strict=True):
                in_force = features_in_force(use_case, request, values)
                found.append(in_force | self._features.on_demand(use_case, request, in_force))
        except NoFeatureService:
            raise problems.no_features(use_case) from None
        except FeatureStoreDown as error:
            raise problems.feature_store_down(str(error)) from None
        except CircuitOpen:
            raise problems.circuit_open(self._feature_circuit.server) from None
        return found

    def _ask(
        self, use_case: UseCase, columns: dict[str, list[str | float | int]], caller: Caller
    ) -> Prediction:
        def ask() -> Prediction:
            return self._model_server.predict(
                use_case, columns, version=CHAMPION, timeout=self._timeout, metadata=caller.trace
            )

        try:
            return self._model_circuit.call(ask)
        except ModelServerDown as error:
            raise problems.model_server_down(str(error)) from None
        except ModelServerLate as error:
            raise problems.model_server_late(str(error)) from None
        except CircuitOpen:
            raise problems.circuit_open(self._model_circuit.server) from None
        except ModelServerRefused as error:
            if self.champion(use_case) is None:
                raise problems.no_champion(use_case) from None
            raise problems.model_server_refused(str(error)) from None

    def _record(
        self,
        use_case: UseCase,
        requests: Sequence[PredictionRequest],
        made: _Predicted,
        caller: Caller,
        begun: float,
    ) -> None:
        seconds = round(time.perf_counter() - begun, 6)
        now = datetime.now(UTC)
        records = [
            PredictionRecord(
                request_id=caller.request_id,
                trace_id=caller.trace_id,
                instance=number,
                caller=caller.name,
                use_case=use_case.name,
                model=use_case.model_name,
                version=made.version,
                variant=CHAMPION,
                predicted_at=now,
                prediction_time=request.prediction_time,
                probability=instance.prediction[use_case.label.name],
                latency_seconds=seconds,
                entities=dict(request.entities),
                request={name: _plain(value) for name, value in request.fields.items()},
                features={name: _plain(value) for name, value in instance.features.items()},
                missing_features=instance.missing_features,
            )
            for number, (request, instance) in enumerate(zip(requests, made.instances, strict=True))
        ]
        if self._spool is not None:
            self._spool.append(records)
        for record in records:
            prediction_log.info(record.model_dump_json())

    def champion(self, use_case: UseCase) -> int | None:
        """The version that takes the traffic; None when none does. Raises `Problem`."""
        try:
            return self._model_server.labelled(use_case.model_name, CHAMPION, timeout=self._timeout)
        except ModelServerDown as error:
            raise problems.model_server_down(str(error)) from None
        except ModelServerLate as error:
            raise problems.model_server_late(str(error)) from None

    def lacking(self, use_case: UseCase) -> list[problems.Fault]:
        """What is not there yet that a prediction needs."""
        faults: list[problems.Fault] = []
        try:
            self._features.service(use_case.feature_service)
        except NoFeatureService:
            faults.append(problems.no_features(use_case).fault)
        except FeatureStoreDown as error:
            faults.append(problems.feature_store_down(str(error)).fault)
        try:
            if self.champion(use_case) is None:
                faults.append(problems.no_champion(use_case).fault)
        except problems.Problem as problem:
            faults.append(problem.fault)
        return faults


def _parsed(parse: Callable[[], _T]) -> _T:
    try:
        return parse()
    except RequestError as error:
        raise problems.invalid_request(error) from None


def _plain(value: FeatureScalar) -> FeatureScalar:
    return value.isoformat() if isinstance(value, datetime) else value
