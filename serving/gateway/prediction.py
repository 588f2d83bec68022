"""One prediction: request, features, model, answer.

Belongs here: the order of those, and which failure becomes which answer. Does not belong here: HTTP routes
(`app`), and the rules of a request (`airloop.prediction_request`).
"""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime
from typing import Final

from pydantic import BaseModel

from airloop.prediction_request import (
    FeatureScalar,
    RequestError,
    assemble_inputs,
    features_in_force,
    missing_features,
    parse_request,
)
from airloop.use_cases.spec import UseCase
from serving.gateway import problems
from serving.gateway.online_features import FeatureStoreDown, NoFeatureService, OnlineFeatures
from serving.gateway.request_context import Metrics
from serving.model_server_client import (
    CHAMPION,
    ModelServer,
    ModelServerDown,
    ModelServerLate,
    ModelServerRefused,
    Prediction,
)

# One JSON object per line and prediction, under a name of its own so that it can be sent elsewhere.
prediction_log: Final = logging.getLogger("airloop.predictions")


class ModelVersion(BaseModel):
    """The model that answered; its version is the one in the registry."""

    name: str
    version: int


class PredictionAnswer(BaseModel):
    """A prediction and what it was made from."""

    request_id: str
    use_case: str
    model: ModelVersion
    prediction: dict[str, float]
    """Probability, by the label's name."""
    prediction_time: datetime
    """In UTC: features are what was known then."""
    features: dict[str, FeatureScalar]
    """The feature values that the model was given; null where there was none."""
    missing_features: list[str]
    """The features without a value; the model knows how to do without."""


class Predictor:
    """Predictions of every use case, from one feature store and one model server."""

    def __init__(
        self, features: OnlineFeatures, model_server: ModelServer, metrics: Metrics, *, timeout: float
    ) -> None:
        self._features = features
        self._model_server = model_server
        self._metrics = metrics
        self._timeout = timeout

    def predict(self, use_case: UseCase, body: bytes, request_id: str) -> PredictionAnswer:
        """The champion's answer to a request body; raises `Problem` for every foreseen failure.

        Blocks for the feature store and the model server: call it in a thread.
        """
        begun = time.perf_counter()
        try:
            request = parse_request(use_case, body)
        except RequestError as error:
            raise problems.invalid_request(error) from None
        try:
            with self._metrics.features.labels(use_case.name).time():
                stored = self._features.read(use_case, request)
        except NoFeatureService:
            raise problems.no_features(use_case) from None
        except FeatureStoreDown as error:
            raise problems.feature_store_down(str(error)) from None
        in_force = features_in_force(use_case, request, stored)
        try:
            in_force |= self._features.on_demand(use_case, request, in_force)
        except FeatureStoreDown as error:
            raise problems.feature_store_down(str(error)) from None
        inputs = assemble_inputs(use_case, request, in_force)
        with self._metrics.model.labels(use_case.name).time():
            prediction = self._ask(use_case, {name: [value] for name, value in inputs.items()})
        missing = missing_features(use_case, in_force)
        used = {item.name: in_force[item.name] for item in use_case.inputs if item.request_field is None}
        self._metrics.count_prediction(use_case.name, prediction.version, missing)
        answer = PredictionAnswer(
            request_id=request_id,
            use_case=use_case.name,
            model=ModelVersion(name=use_case.model_name, version=prediction.version),
            prediction={use_case.label.name: prediction.probability[0]},
            prediction_time=request.prediction_time,
            features=used,
            missing_features=list(missing),
        )
        record = answer.model_dump(mode="json")
        record["request"] = {name: _plain(value) for name, value in request.fields.items()}
        record["seconds"] = round(time.perf_counter() - begun, 6)
        prediction_log.info(json.dumps(record))
        return answer

    def _ask(self, use_case: UseCase, columns: dict[str, list[str | float | int]]) -> Prediction:
        try:
            return self._model_server.predict(use_case, columns, version=CHAMPION, timeout=self._timeout)
        except ModelServerDown as error:
            raise problems.model_server_down(str(error)) from None
        except ModelServerLate as error:
            raise problems.model_server_late(str(error)) from None
        except ModelServerRefused as error:
            if self.champion(use_case) is None:
                raise problems.no_champion(use_case) from None
            raise problems.model_server_refused(str(error)) from None

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


def _plain(value: FeatureScalar) -> FeatureScalar:
    return value.isoformat() if isinstance(value, datetime) else value
