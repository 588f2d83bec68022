"""The gateway's HTTP interface: the same routes for every use case, built from its spec.

Belongs here: routes and their descriptions. Does not belong here: how a prediction is made (`prediction`),
or the process (`__main__`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import Depends, FastAPI, Request, Response, Security
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from opentelemetry.trace import Tracer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from airloop.prediction_log.spool import Spool
from airloop.prediction_request import BATCH_FIELD, example_body, request_model
from airloop.routing_document import Routing, routing_file
from airloop.use_cases.spec import UseCase
from serving.gateway import feedback, problems
from serving.gateway.access import Access, NotAllowed, Role, Unknown
from serving.gateway.explanations import Contribution, Explanations
from serving.gateway.online_features import OnlineFeatures
from serving.gateway.prediction import (
    MOST_INSTANCES,
    BatchAnswer,
    ModelVersion,
    PredictionAnswer,
    Predictor,
)
from serving.gateway.request_context import Metrics, RequestContext, caller_of, name_caller
from serving.model_server_client import ModelServer
from serving.routing import LiveRouting

BODY_LIMIT_BYTES: Final = 64 * 1024
BATCH_BODY_LIMIT_BYTES: Final = 1024 * 1024
SPARE_THREADS: Final = 8
"""More than all requests that are taken need: for who asks how the gateway is."""
DESCRIPTION: Final = """Predictions from online features and the champion model.

Times carry an offset. A feature that has no value, or whose value is too old at the prediction time, is
listed in `missing_features`; so are the features of a category that is not known yet. The model is trained
to do without. Errors name what was expected, what was found and what to do next."""
_FAILURES: Final = {
    400: "the body is not a JSON object",
    401: "no API key, or an unknown one",
    403: "an API key without the role",
    413: "the body is too long",
    422: "a field is missing, unknown, or not of its type",
    502: "the champion does not take the inputs of the spec, or answers no number",
    503: "no features or no champion yet, a server that is down, or too many requests under way",
    504: "the model server took too long",
}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": problems.ErrorAnswer, "description": text} for status, text in _FAILURES.items()
}
_REFUSALS: Final = {status: _RESPONSES[status] for status in (401, 403)}
_FEEDBACK_RESPONSES: Final = {
    **{status: _RESPONSES[status] for status in (400, 401, 403, 413, 422)},
    503: {"model": problems.ErrorAnswer, "description": "it could not be put on the disk, or is too much"},
}
_BEARER: Final = HTTPBearer(
    auto_error=False, description="An API key; none is asked for where there are none."
)


class Health(BaseModel):
    """The process lives."""

    status: str


class Readiness(BaseModel):
    """Whether what has a champion can be served, and what each use case lacks."""

    ready: bool
    lacking: dict[str, list[problems.Fault]]


def is_ready(lacking: Mapping[str, Sequence[problems.Fault]]) -> bool:
    """Whether requests may come, by what each use case lacks.

    One without a champion is new, and keeps nobody from the others. With no use case at all, as where all are
    scored in batches, nothing is lacking.
    """
    served = [
        faults for faults in lacking.values() if problems.NO_CHAMPION not in {fault.type for fault in faults}
    ]
    return not lacking or (bool(served) and not any(served))


class Serving(BaseModel):
    """What serves a use case."""

    use_case: str
    description: str
    label: str
    model: ModelVersion | None
    routing: Routing
    """What other versions get: copies, or a share of the clients."""
    lacking: list[problems.Fault]


class ExplanationAnswer(BaseModel):
    """A prediction of the champion and what each input did to it."""

    request_id: str
    use_case: str
    model: ModelVersion
    prediction: dict[str, float]
    """As `predict` gives it."""
    scale: str
    """What base and contributions are counted in."""
    base: float
    """What is usual; with the contributions, it adds up to the prediction on that scale."""
    contributions: list[Contribution]
    """The largest first."""


def create_app(
    use_cases: Sequence[UseCase],
    features: OnlineFeatures,
    model_server: ModelServer,
    *,
    predict_timeout: float,
    access: Access,
    models_dir: Path,
    spool: Spool | None = None,
    outcomes: Spool | None = None,
    most_in_flight: int = 64,
    tracer: Tracer | None = None,
) -> FastAPI:
    """The gateway over `use_cases`; starts whatever else is there yet.

    `predict_timeout` is the most seconds that the model server may take; of more requests than
    `most_in_flight` under way at a time, those that came last are refused. `access` knows the API keys;
    `models_dir` has what is routed where, and what explanations compare with; `spool` keeps each prediction
    and `outcomes` what becomes of them, if given; requests have spans of `tracer`, if given.
    `app.state.warm_up()` makes what the first requests of all use cases would wait for.
    """
    metrics = Metrics()
    if spool is not None:
        metrics.lost.set_function(lambda: spool.lost)
    for name, kept in (("predictions", spool), ("outcomes", outcomes)):
        if kept is not None:
            metrics.watch(name, kept)
    predictor = Predictor(
        features,
        model_server,
        metrics,
        timeout=predict_timeout,
        routing={
            use_case.name: LiveRouting(routing_file(models_dir, use_case.model_name))
            for use_case in use_cases
        },
        spool=spool,
    )
    explanations = Explanations(models_dir, model_server)

    @asynccontextmanager
    async def enough_threads(_app: FastAPI) -> AsyncIterator[None]:
        # Otherwise requests that were taken would wait for a thread, and with them whoever asks how it is.
        threads = to_thread.current_default_thread_limiter()
        threads.total_tokens = max(threads.total_tokens, most_in_flight + SPARE_THREADS)
        yield

    # The page's scripts come from here: a gateway often runs where no CDN is reached.
    app = FastAPIOffline(
        title="Airloop gateway",
        version="1",
        description=DESCRIPTION,
        redoc_url=None,
        lifespan=enough_threads,
    )

    def warm_up() -> None:
        for use_case in use_cases:
            predictor.warm_up(use_case)

    app.state.warm_up = warm_up

    async def shed(scope: Scope, receive: Receive, send: Send) -> None:
        answer = problems.answer_problem(Request(scope), problems.overloaded(most_in_flight))
        await answer(scope, receive, send)

    app.add_middleware(
        RequestContext, metrics=metrics, most_in_flight=most_in_flight, shed=shed, tracer=tracer
    )
    app.add_exception_handler(problems.Problem, problems.answer_problem)
    app.add_exception_handler(HTTPException, problems.answer_http_exception)
    app.add_exception_handler(Exception, problems.answer_defect)
    for use_case in use_cases:
        _add_use_case(app, use_case, predictor, access, explanations)
        _add_feedback(app, use_case, outcomes, access, metrics)
    _add_operations(app, use_cases, predictor, metrics, access)
    return app


def requires(access: Access, role: Role) -> Any:
    """A dependency: the request's key must have `role`, or `Problem` (401, 403) is the answer."""

    # Not a plain function: FastAPI would run it in a thread, which costs more than the check.
    async def check(
        request: Request, presented: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
    ) -> None:
        try:
            name_caller(request.scope, access.name_of(presented.credentials if presented else None, role))
        except Unknown:
            raise problems.no_key() from None
        except NotAllowed as error:
            raise problems.not_allowed(str(error), role) from None

    return Depends(check)


def body_reader(limit: int) -> Callable[[Request], Awaitable[bytes]]:
    """Reads a request's body; raises `Problem` (413) as soon as it is known to have more than `limit` bytes,
    and reads no more."""

    async def read_body(request: Request) -> bytes:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise problems.body_too_large(limit)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise problems.body_too_large(limit)
        return bytes(body)

    return read_body


def _add_use_case(
    app: FastAPI, use_case: UseCase, predictor: Predictor, access: Access, explanations: Explanations
) -> None:
    # Plain functions: FastAPI runs them in its thread pool, and both stores are waited for in them.
    def predict(request: Request, body: Annotated[bytes, Depends(body_reader(BODY_LIMIT_BYTES))]) -> Response:
        return _as_json(predictor.predict(use_case, body, caller_of(request.scope)))

    def predict_batch(
        request: Request, body: Annotated[bytes, Depends(body_reader(BATCH_BODY_LIMIT_BYTES))]
    ) -> Response:
        return _as_json(predictor.predict_batch(use_case, body, caller_of(request.scope)))

    def explain(
        request: Request, body: Annotated[bytes, Depends(body_reader(BODY_LIMIT_BYTES))]
    ) -> ExplanationAnswer:
        _, columns = predictor.question(use_case, body)
        version = predictor.champion(use_case)
        if version is None:
            raise problems.no_champion(use_case)
        found = explanations.explain(use_case, version, columns)
        return ExplanationAnswer(
            request_id=caller_of(request.scope).request_id,
            use_case=use_case.name,
            model=ModelVersion(name=use_case.model_name, version=version),
            prediction=found.prediction,
            scale=found.scale,
            base=found.base,
            contributions=found.contributions,
        )

    def serving() -> Serving:
        lacking = predictor.lacking(use_case)
        version = None if lacking else predictor.champion(use_case)
        model = None if version is None else ModelVersion(name=use_case.model_name, version=version)
        return Serving(
            use_case=use_case.name,
            description=use_case.description,
            label=use_case.label.name,
            model=model,
            routing=predictor.routing(use_case),
            lacking=lacking,
        )

    label = f"`{use_case.label.name}`: {use_case.label.description}"
    schema, example = request_model(use_case).model_json_schema(), example_body(use_case)
    batch_schema = {
        "type": "object",
        "properties": {
            BATCH_FIELD: {"type": "array", "items": schema, "minItems": 1, "maxItems": MOST_INSTANCES}
        },
        "required": [BATCH_FIELD],
        "additionalProperties": False,
    }
    routes: list[tuple[str, Callable[..., Any], type[BaseModel], str, dict[str, Any], dict[str, Any]]] = [
        ("predict", predict, PredictionAnswer, f"Predicts {label}.", schema, example),
        (
            "predict_batch",
            predict_batch,
            BatchAnswer,
            f"Predicts {label}, for up to {MOST_INSTANCES} instances by one version, all or none.",
            batch_schema,
            {BATCH_FIELD: [example, example]},
        ),
        (
            "explain",
            explain,
            ExplanationAnswer,
            f"What each input adds to the champion's prediction of {label}, or takes from it, in "
            f"{use_case.label.target.scale}: Shapley values, as in the model card.",
            schema,
            example,
        ),
    ]
    for name, endpoint, answer, described, body_schema, body_example in routes:
        app.add_api_route(
            f"/v1/{use_case.name}/{name}",
            endpoint,
            methods=["POST"],
            response_model=answer,
            operation_id=f"{use_case.name}_{name}",
            summary=use_case.description,
            description=described,
            tags=[use_case.name],
            dependencies=[requires(access, Role.PREDICT)],
            responses=_RESPONSES,
            # The body is read by `body_reader`, which has a limit, and checked by the spec's own rules.
            openapi_extra={
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": body_schema, "example": body_example}},
                }
            },
        )
    app.add_api_route(
        f"/v1/{use_case.name}",
        serving,
        methods=["GET"],
        response_model=Serving,
        operation_id=f"{use_case.name}_serving",
        summary="What serves",
        tags=[use_case.name],
        dependencies=[requires(access, Role.OPERATE)],
        responses=_REFUSALS,
    )


def _as_json(answer: BaseModel) -> Response:
    """The answer as it is: FastAPI would validate a model again that was just made."""
    return Response(answer.model_dump_json(), media_type="application/json")


def _add_feedback(
    app: FastAPI, use_case: UseCase, outcomes: Spool | None, access: Access, metrics: Metrics
) -> None:
    def tell(
        request: Request, body: Annotated[bytes, Depends(body_reader(BODY_LIMIT_BYTES))]
    ) -> feedback.Kept:
        return feedback.keep(use_case, body, caller_of(request.scope), outcomes, metrics)

    schema = feedback.body_schema(use_case.label.target)
    app.add_api_route(
        f"/v1/{use_case.name}/feedback",
        tell,
        methods=["POST"],
        response_model=feedback.Kept,
        status_code=202,
        operation_id=f"{use_case.name}_feedback",
        summary="What became of predictions",
        description="Tells outcomes of predictions, all or none. An answer means that they are kept. What is "
        "told again replaces what was told before.",
        tags=[use_case.name],
        dependencies=[requires(access, Role.FEEDBACK)],
        responses=_FEEDBACK_RESPONSES,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": schema, "example": feedback.example(use_case.label.target)}
                },
            }
        },
    )


def _add_operations(
    app: FastAPI, use_cases: Sequence[UseCase], predictor: Predictor, metrics: Metrics, access: Access
) -> None:
    # On the event loop: answered when all threads are busy too.
    async def healthz() -> Health:
        return Health(status="alive")

    def readyz() -> JSONResponse:
        lacking = {use_case.name: predictor.lacking(use_case) for use_case in use_cases}
        ready = is_ready(lacking)
        answer = Readiness(ready=ready, lacking=lacking)
        return JSONResponse(answer.model_dump(), status_code=200 if ready else 503)

    async def exposition() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    routes: list[tuple[str, Callable[..., Any | Awaitable[Any]], dict[str, Any]]] = [
        ("/healthz", healthz, {"response_model": Health, "summary": "Whether the process lives"}),
        (
            "/readyz",
            readyz,
            {
                "response_model": Readiness,
                "summary": "Whether every use case that has a champion can be served, and there is one",
                "responses": {503: {"model": Readiness, "description": "what is lacking, and what to do"}},
            },
        ),
        (
            "/metrics",
            exposition,
            {
                "response_class": Response,
                "summary": "Prometheus metrics",
                "dependencies": [requires(access, Role.OPERATE)],
                "responses": _REFUSALS,
            },
        ),
    ]
    for path, endpoint, described in routes:
        app.add_api_route(path, endpoint, methods=["GET"], tags=["operations"], **described)
