"""The gateway's HTTP interface: the same routes for every use case, built from its spec.

Belongs here: routes and their descriptions. Does not belong here: how a prediction is made (`prediction`),
or the process (`__main__`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from airloop.prediction_request import example_body, request_model
from airloop.use_cases.spec import UseCase
from serving.gateway import problems
from serving.gateway.online_features import OnlineFeatures
from serving.gateway.prediction import ModelVersion, PredictionAnswer, Predictor
from serving.gateway.request_context import Metrics, RequestContext, request_id_of
from serving.model_server_client import ModelServer

BODY_LIMIT_BYTES: Final = 64 * 1024
DESCRIPTION: Final = """Predictions from online features and the champion model.

Times carry an offset. A feature that has no value, or whose value is too old at the prediction time, is
listed in `missing_features`; so are the features of a category that is not known yet. The model is trained
to do without. Errors name what was expected, what was found and what to do next."""
_FAILURES: Final = {
    400: "the body is not a JSON object",
    413: f"the body is longer than {BODY_LIMIT_BYTES} bytes",
    422: "a field is missing, unknown, or not of its type",
    502: "the champion does not take the inputs of the spec",
    503: "no features or no champion yet, or a server that is down",
    504: "the model server took too long",
}


class Health(BaseModel):
    """The process lives."""

    status: str


class Readiness(BaseModel):
    """Whether every use case can be served, and what each one lacks."""

    ready: bool
    lacking: dict[str, list[problems.Fault]]


class Serving(BaseModel):
    """What serves a use case."""

    use_case: str
    description: str
    label: str
    model: ModelVersion | None
    lacking: list[problems.Fault]


def create_app(
    use_cases: Sequence[UseCase],
    features: OnlineFeatures,
    model_server: ModelServer,
    *,
    predict_timeout: float,
) -> FastAPI:
    """The gateway over `use_cases`; starts whatever else is there yet.

    `predict_timeout` is the most seconds that the model server may take.
    """
    metrics = Metrics()
    predictor = Predictor(features, model_server, metrics, timeout=predict_timeout)
    app = FastAPI(title="Airloop gateway", version="1", description=DESCRIPTION, redoc_url=None)
    app.add_middleware(RequestContext, metrics=metrics)
    app.add_exception_handler(problems.Problem, problems.answer_problem)
    app.add_exception_handler(HTTPException, problems.answer_http_exception)
    app.add_exception_handler(Exception, problems.answer_defect)
    for use_case in use_cases:
        _add_use_case(app, use_case, predictor)
    _add_operations(app, use_cases, predictor, metrics)
    return app


async def read_body(request: Request) -> bytes:
    """The request's body; raises `Problem` (413) as soon as it is known to be too long, and reads no more."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > BODY_LIMIT_BYTES:
        raise problems.body_too_large(BODY_LIMIT_BYTES)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT_BYTES:
            raise problems.body_too_large(BODY_LIMIT_BYTES)
    return bytes(body)


def _add_use_case(app: FastAPI, use_case: UseCase, predictor: Predictor) -> None:
    # Plain functions: FastAPI runs them in its thread pool, and both stores are waited for in them.
    def predict(request: Request, body: Annotated[bytes, Depends(read_body)]) -> PredictionAnswer:
        return predictor.predict(use_case, body, request_id_of(request.scope))

    def serving() -> Serving:
        lacking = predictor.lacking(use_case)
        version = None if lacking else predictor.champion(use_case)
        model = None if version is None else ModelVersion(name=use_case.model_name, version=version)
        return Serving(
            use_case=use_case.name,
            description=use_case.description,
            label=use_case.label.name,
            model=model,
            lacking=lacking,
        )

    app.add_api_route(
        f"/v1/{use_case.name}/predict",
        predict,
        methods=["POST"],
        response_model=PredictionAnswer,
        operation_id=f"{use_case.name}_predict",
        summary=use_case.description,
        description=f"Predicts `{use_case.label.name}`: {use_case.label.description}.",
        tags=[use_case.name],
        responses={
            status: {"model": problems.ErrorAnswer, "description": text} for status, text in _FAILURES.items()
        },
        # The body is read by `read_body`, which has a limit, and checked by the spec's own rules.
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": request_model(use_case).model_json_schema(),
                        "example": example_body(use_case),
                    }
                },
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
    )


def _add_operations(
    app: FastAPI, use_cases: Sequence[UseCase], predictor: Predictor, metrics: Metrics
) -> None:
    def healthz() -> Health:
        return Health(status="alive")

    def readyz() -> JSONResponse:
        lacking = {use_case.name: predictor.lacking(use_case) for use_case in use_cases}
        ready = not any(lacking.values())
        answer = Readiness(ready=ready, lacking=lacking)
        return JSONResponse(answer.model_dump(), status_code=200 if ready else 503)

    def exposition() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    routes: list[tuple[str, Callable[..., Any | Awaitable[Any]], dict[str, Any]]] = [
        ("/healthz", healthz, {"response_model": Health, "summary": "Whether the process lives"}),
        (
            "/readyz",
            readyz,
            {
                "response_model": Readiness,
                "summary": "Whether every use case can be served",
                "responses": {503: {"model": Readiness, "description": "what is lacking, and what to do"}},
            },
        ),
        ("/metrics", exposition, {"response_class": Response, "summary": "Prometheus metrics"}),
    ]
    for path, endpoint, described in routes:
        app.add_api_route(path, endpoint, methods=["GET"], tags=["operations"], **described)
