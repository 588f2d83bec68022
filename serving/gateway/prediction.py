"""Predictions: requests, features, model, answers.

Belongs here: the order of those, and which failure becomes which answer. Does not belong here: HTTP routes
(`app`), and the rules of a request (`airloop.prediction_request`).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, TypeVar

from pydantic import BaseModel

from airloop.prediction_log import variants
from airloop.prediction_log.record import PredictionRecord
from airloop.prediction_log.spool import Spool
from airloop.prediction_request import (
    FeatureScalar,
    PredictionRequest,
    RequestError,
    assemble_inputs,
    event_of,
    example_body,
    features_in_force,
    missing_features,
    parse_batch,
    parse_request,
)
from airloop.routing_document import Routing
from airloop.traces import span
from airloop.use_cases.spec import UseCase
from serving.gateway import problems
from serving.gateway.attempts import Attempt, Columns, NotFinite, Versions, error_of
from serving.gateway.circuit import Circuit, CircuitOpen
from serving.gateway.online_features import FeatureStoreDown, NoFeatureService, OnlineFeatures
from serving.gateway.prediction_lines import PREDICTIONS, RECORD
from serving.gateway.request_context import Caller, Metrics
from serving.gateway.versions import choose
from serving.model_server_client import (
    CHAMPION,
    ModelServer,
    ModelServerDown,
    ModelServerLate,
    ModelServerRefused,
)
from serving.routing import LiveRouting

MOST_INSTANCES: Final = 256
"""Requests of a batch."""
_T = TypeVar("_T")
log: Final = logging.getLogger(__name__)
prediction_log: Final = logging.getLogger(PREDICTIONS)


class ModelVersion(BaseModel):
    """The model that answered; its version is the one in the registry."""

    name: str
    version: int


class InstanceAnswer(BaseModel):
    """A prediction and what it was made from."""

    prediction: dict[str, float]
    """What the model says, by the label's name; of several classes or quantiles by theirs."""
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
    variant: str
    """Why this version answered: `champion`, or what a rollout or an experiment gave the client."""


class BatchAnswer(BaseModel):
    """As many predictions as there were instances, in their order, all by one version."""

    request_id: str
    use_case: str
    model: ModelVersion
    variant: str
    predictions: list[InstanceAnswer]


@dataclass(frozen=True)
class _Question:
    """Requests, and everything that any version is given to answer them."""

    use_case: UseCase
    requests: Sequence[PredictionRequest]
    features: Sequence[dict[str, FeatureScalar]]
    """Of each request, those in force."""
    columns: Columns
    caller: Caller
    unit: str | None
    begun: float
    """When it was asked, by `time.perf_counter`."""


@dataclass(frozen=True)
class _Answered:
    """A client's answer."""

    version: int
    variant: str
    instances: list[InstanceAnswer]


class Predictor:
    """Makes predictions; threads may share it."""

    def __init__(
        self,
        features: OnlineFeatures,
        model_server: ModelServer,
        metrics: Metrics,
        *,
        timeout: float,
        routing: Mapping[str, LiveRouting],
        spool: Spool | None = None,
    ) -> None:
        self._features = features
        self._model_server = model_server
        self._metrics = metrics
        self._timeout = timeout
        self._routing = routing
        self._spool = spool
        self._versions = Versions(model_server, timeout=timeout)
        self._feature_circuit = Circuit("feature store", (FeatureStoreDown,))

    def predict(self, use_case: UseCase, body: bytes, caller: Caller) -> PredictionAnswer:
        """The answer to a request body; raises `Problem` for every foreseen failure.

        Blocks for the feature store and the model server: call it in a thread.
        """
        begun = time.perf_counter()
        request = _parsed(lambda: parse_request(use_case, body))
        made = self._answered(use_case, [request], caller, begun)
        return PredictionAnswer(
            request_id=caller.request_id,
            use_case=use_case.name,
            model=ModelVersion(name=use_case.model_name, version=made.version),
            variant=made.variant,
            **dict(made.instances[0]),
        )

    def predict_batch(self, use_case: UseCase, body: bytes, caller: Caller) -> BatchAnswer:
        """The answers to a batch's body, all or none, all by one version; as `predict` otherwise."""
        begun = time.perf_counter()
        requests = _parsed(lambda: parse_batch(use_case, body, MOST_INSTANCES))
        made = self._answered(use_case, requests, caller, begun)
        return BatchAnswer(
            request_id=caller.request_id,
            use_case=use_case.name,
            model=ModelVersion(name=use_case.model_name, version=made.version),
            variant=made.variant,
            predictions=made.instances,
        )

    def warm_up(self, use_case: UseCase) -> None:
        """Predict the spec's example once, for nobody: the first request costs seconds (imports, the feature
        registry, connections). What is lacking is no matter here."""
        body = json.dumps(example_body(use_case)).encode()
        try:
            _, columns = self.question(use_case, body)
            self._versions.champion(use_case, CHAMPION, columns, ())
        except Exception as error:
            log.info("%s is not warmed up: %s", use_case.name, error)

    def question(self, use_case: UseCase, body: bytes) -> tuple[PredictionRequest, Columns]:
        """The request in a body and the champion's inputs for it, one row; raises `Problem`."""
        request = _parsed(lambda: parse_request(use_case, body))
        return request, _columns(use_case, [request], self._in_force(use_case, [request]))

    def _answered(
        self, use_case: UseCase, requests: Sequence[PredictionRequest], caller: Caller, begun: float
    ) -> _Answered:
        in_force = self._in_force(use_case, requests)
        choice = choose(self.routing(use_case), use_case, requests, caller.request_id)
        question = _Question(
            use_case=use_case,
            requests=requests,
            features=in_force,
            columns=_columns(use_case, requests, in_force),
            caller=caller,
            unit=choice.unit,
            begun=begun,
        )
        variant, attempt = choice.variant, None
        if isinstance(choice.version, int):
            with self._metrics.model.labels(use_case.name).time():
                attempt = self._versions.candidate(use_case, choice.version, question.columns, caller.trace)
            if attempt is None or attempt.error is not None:
                if attempt is not None:
                    self._record(question, variant, attempt)
                variant, attempt = variants.FALLBACK, None
        if attempt is None:
            attempt = self._champion(question, variant)
        self._record(question, variant, attempt)
        if choice.shadow is not None and variant in (variants.CHAMPION, variants.CONTROL):
            self._copy(question, choice.shadow)
        instances = _instances(question, attempt, self._versions.inputs(use_case, attempt.version))
        return _Answered(attempt.version, variant, instances)

    def _in_force(
        self, use_case: UseCase, requests: Sequence[PredictionRequest]
    ) -> list[dict[str, FeatureScalar]]:
        """The features of each request that count at its prediction time."""
        try:
            with self._metrics.features.labels(use_case.name).time(), span("read features"):
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

    def _champion(self, question: _Question, variant: str) -> Attempt:
        use_case, begun = question.use_case, time.perf_counter()
        try:
            with self._metrics.model.labels(use_case.name).time():
                return self._versions.champion(use_case, CHAMPION, question.columns, question.caller.trace)
        except CircuitOpen as error:
            raise problems.circuit_open(str(error)) from None
        except (ModelServerDown, ModelServerLate, ModelServerRefused, NotFinite) as error:
            # Which version it would have been is not known.
            failed = Attempt(0, None, error_of(error), time.perf_counter() - begun)
            self._record(question, variant, failed)
            match error:
                case ModelServerDown():
                    raise problems.model_server_down(str(error)) from None
                case ModelServerLate():
                    raise problems.model_server_late(str(error)) from None
                case NotFinite():
                    raise problems.not_finite(str(error)) from None
            if self.champion(use_case) is None:
                raise problems.no_champion(use_case) from None
            raise problems.model_server_refused(str(error)) from None

    def _copy(self, question: _Question, version: int) -> None:
        begun = time.perf_counter()

        def done(attempt: Attempt) -> None:
            self._record(replace(question, begun=begun), variants.SHADOW, attempt, wait=False)

        # Clients that wait come before what nobody waits for.
        crowded = question.caller.crowded
        if crowded or not self._versions.copy(question.use_case, version, question.columns, done):
            self._metrics.uncopied.labels(question.use_case.name).inc()

    def _record(self, question: _Question, variant: str, attempt: Attempt, *, wait: bool = True) -> None:
        """Keep an attempt, on the disk and in the log; `wait` for the disk, if not for long."""
        use_case = question.use_case
        inputs = self._versions.inputs(use_case, attempt.version)
        seconds = round(time.perf_counter() - question.begun, 6)
        now = datetime.now(UTC)
        answers = attempt.answers or [None] * len(question.requests)
        records = [
            PredictionRecord(
                request_id=question.caller.request_id,
                trace_id=question.caller.trace_id,
                instance=number,
                caller=question.caller.name,
                use_case=use_case.name,
                model=use_case.model_name,
                version=attempt.version,
                variant=variant,
                predicted_at=now,
                prediction_time=request.prediction_time,
                answer=found,
                latency_seconds=seconds,
                entities=dict(request.entities),
                request={name: _plain(value) for name, value in request.fields.items()},
                features={name: _plain(value) for name, value in _given(use_case, features, inputs).items()},
                missing_features=_missing(use_case, features, inputs),
                error=attempt.error,
                model_seconds=round(attempt.seconds, 6),
                unit=question.unit,
                event=event_of(use_case, request),
            )
            for number, (request, features, found) in enumerate(
                zip(question.requests, question.features, answers, strict=True)
            )
        ]
        lines = [record.model_dump_json() for record in records]
        if self._spool is not None:
            self._spool.append(lines, wait=wait)
        for record, line in zip(records, lines, strict=True):
            self._metrics.count(record)
            prediction_log.info(line, extra={RECORD: record})

    def routing(self, use_case: UseCase) -> Routing:
        """What versions beside the champion get."""
        live = self._routing.get(use_case.name)
        return live.current() if live is not None else Routing()

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
            if use_case.feature_service is not None:
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


def _columns(
    use_case: UseCase,
    requests: Sequence[PredictionRequest],
    in_force: Sequence[dict[str, FeatureScalar]],
) -> Columns:
    rows = [
        assemble_inputs(use_case, request, features)
        for request, features in zip(requests, in_force, strict=True)
    ]
    return {item.name: [row[item.name] for row in rows] for item in use_case.inputs}


def _instances(question: _Question, attempt: Attempt, inputs: frozenset[str] | None) -> list[InstanceAnswer]:
    use_case = question.use_case
    return [
        InstanceAnswer(
            prediction=use_case.label.named(answer),
            prediction_time=request.prediction_time,
            features=_given(use_case, features, inputs),
            missing_features=_missing(use_case, features, inputs),
        )
        for request, features, answer in zip(
            question.requests, question.features, attempt.answers or (), strict=True
        )
    ]


def _given(
    use_case: UseCase, features: Mapping[str, FeatureScalar], inputs: frozenset[str] | None
) -> dict[str, FeatureScalar]:
    """The features that a version was given: all of the spec's, or those of its own `inputs`."""
    names = (item.name for item in use_case.inputs if item.request_field is None)
    return {name: features[name] for name in names if inputs is None or name in inputs}


def _missing(
    use_case: UseCase, features: Mapping[str, FeatureScalar], inputs: frozenset[str] | None
) -> list[str]:
    found = missing_features(use_case, features)
    return [name for name in found if inputs is None or name in inputs]


def _plain(value: FeatureScalar) -> FeatureScalar:
    return value.isoformat() if isinstance(value, datetime) else value
