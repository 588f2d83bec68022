"""The gateway's error answers: one JSON form for everything that can go wrong.

Belongs here: the form, and the problems that have a fixed wording. Does not belong here: finding them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from airloop.prediction_request import RequestError
from airloop.use_cases.spec import UseCase
from serving.gateway.request_context import caller_of


class FieldFault(BaseModel):
    """One field of the request that is wrong; an empty name means the body as a whole."""

    field: str
    expected: str
    found: str
    next_step: str


class Fault(BaseModel):
    """What was expected, what was found, what to do next."""

    type: str
    expected: str
    found: str
    next_step: str
    fields: list[FieldFault] = []


class ErrorAnswer(BaseModel):
    """The body of every answer that is not a success."""

    request_id: str
    error: Fault


class Problem(Exception):
    """An answer other than a success: its HTTP status and its fault."""

    def __init__(self, status: int, fault: Fault, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status} {fault.type}: {fault.found}")
        self.status = status
        self.fault = fault
        self.headers = dict(headers or {})


def invalid_request(error: RequestError) -> Problem:
    """422 naming each field; 400 for a body that is no JSON object."""
    fields = [
        FieldFault(field=item.field, expected=item.expected, found=item.found, next_step=item.next_step)
        for item in error.problems
    ]
    fault = Fault(
        type="InvalidRequest" if error.is_object else "InvalidJson",
        expected=error.expected,
        found=error.found,
        next_step=error.next_step,
        fields=fields,
    )
    return Problem(422 if error.is_object else 400, fault)


def body_too_large(limit: int) -> Problem:
    """413; the rest of the body is not read, so the connection cannot be used again."""
    fault = Fault(
        type="BodyTooLarge",
        expected=f"a body of at most {limit} bytes",
        found="a longer one",
        next_step="send fewer or shorter values; split a batch",
    )
    return Problem(413, fault, {"Connection": "close"})


NO_CHAMPION: Final = "NoChampion"


def no_champion(use_case: UseCase) -> Problem:
    """503: the model server answers, but no version of the model takes traffic yet."""
    fault = Fault(
        type=NO_CHAMPION,
        expected=f"a version of model {use_case.model_name} labelled champion on the model server",
        found="none",
        next_step=f"run the DAGs {use_case.name}_training and {use_case.name}_rollout, then ask again",
    )
    return Problem(503, fault, {"Retry-After": "30"})


def model_server_down(reason: str) -> Problem:
    """503: the model server does not answer."""
    fault = Fault(
        type="ModelServerDown",
        expected="the model server to answer",
        found=reason,
        next_step="ask again in a few seconds; if it lasts, look at the model server's process and log",
    )
    return Problem(503, fault, {"Retry-After": "5"})


def model_server_late(reason: str) -> Problem:
    """504: the model server took too long."""
    fault = Fault(
        type="ModelServerLate",
        expected="the model server to answer in time",
        found=reason,
        next_step="ask again; if it lasts, look at the model server's load",
    )
    return Problem(504, fault, {"Retry-After": "5"})


def model_server_refused(reason: str) -> Problem:
    """502: the champion and the spec do not fit together."""
    fault = Fault(
        type="ModelServerRefused",
        expected="the champion to take the inputs of the use case's spec",
        found=reason,
        next_step="train and roll out a model with the present spec, or restart the gateway with the spec "
        "that the champion was trained with",
    )
    return Problem(502, fault)


def not_finite(reason: str) -> Problem:
    """502: the champion's answer is no number."""
    fault = Fault(
        type="NotFinite",
        expected="finite numbers",
        found=reason,
        next_step="ask again; if it lasts, roll the model back and look at the request's features",
    )
    return Problem(502, fault)


def no_explainer(use_case: UseCase, version: int, reason: str) -> Problem:
    """503: the champion came without the rows that explanations compare with."""
    fault = Fault(
        type="NoExplainer",
        expected=f"the explainer of version {version} of model {use_case.model_name}",
        found=reason,
        next_step=f"run {use_case.name}_rollout for the version again; one that was evaluated on very few "
        "days has none",
    )
    return Problem(503, fault, {"Retry-After": "30"})


def overloaded_explanations(most: int) -> Problem:
    """503: as many explanations as the gateway makes at a time are under way."""
    fault = Fault(
        type="Overloaded",
        expected=f"at most {most} explanations under way",
        found="one more",
        next_step="ask again in a few seconds; each asks the model about thousands of rows",
    )
    return Problem(503, fault, {"Retry-After": "2"})


def not_kept(what: str) -> Problem:
    """503: what a client sent could not be put on the disk."""
    fault = Fault(
        type="NotKept",
        expected=f"the {what} to be kept",
        found="a disk that is full or does not answer",
        next_step="send the same again in a few seconds: what is told twice counts once",
    )
    return Problem(503, fault, {"Retry-After": "5"})


def no_features(use_case: UseCase) -> Problem:
    """503: the feature service is not applied yet."""
    fault = Fault(
        type="NoFeatures",
        expected=f"the feature service {use_case.feature_service} in the feature registry",
        found="none",
        next_step=f"run the DAG {use_case.name}_features, then ask again",
    )
    return Problem(503, fault, {"Retry-After": "30"})


def feature_store_down(reason: str) -> Problem:
    """503: the feature store does not answer."""
    fault = Fault(
        type="FeatureStoreDown",
        expected="the feature store to answer",
        found=reason,
        next_step="ask again in a few seconds; if it lasts, look at the gateway's log and the online store",
    )
    return Problem(503, fault, {"Retry-After": "5"})


def circuit_open(server: str) -> Problem:
    """503: the server failed several times in a row, and is not asked for a moment."""
    fault = Fault(
        type="CircuitOpen",
        expected=f"the {server} to answer",
        found="failures in a row, so it is left alone for a moment",
        next_step=f"ask again in a few seconds; if it lasts, look at the {server}'s process and log",
    )
    return Problem(503, fault, {"Retry-After": "2"})


def no_key() -> Problem:
    """401: no API key, or one that nobody was given."""
    fault = Fault(
        type="UnknownKey",
        expected="an API key, as Authorization: Bearer <key>",
        found="none, or one that is not known",
        next_step="ask whoever runs the gateway for a key",
    )
    return Problem(401, fault, {"WWW-Authenticate": "Bearer"})


def not_allowed(name: str, role: str) -> Problem:
    """403: the API key has not the role."""
    fault = Fault(
        type="NotAllowed",
        expected=f"an API key with the role {role}",
        found=f"that of {name}, which has not",
        next_step="use another key, or ask whoever runs the gateway for the role",
    )
    return Problem(403, fault)


def overloaded(most: int) -> Problem:
    """503: the gateway has as many requests under way as it can answer in time."""
    fault = Fault(
        type="Overloaded",
        expected=f"at most {most} requests under way",
        found="one more",
        next_step="ask again after the seconds in Retry-After, later each time; or run more gateways",
    )
    return Problem(503, fault, {"Retry-After": "1"})


def answer_problem(request: Request, problem: Exception) -> JSONResponse:
    """The answer to a `Problem`."""
    assert isinstance(problem, Problem)
    return _answer(request, problem.status, problem.fault, problem.headers)


def answer_http_exception(request: Request, error: Exception) -> JSONResponse:
    """The answer to an unknown path or a method that is not allowed."""
    assert isinstance(error, HTTPException)
    fault = Fault(
        type=str(error.detail).replace(" ", ""),
        expected="a path and a method of the /docs page",
        found=f"{request.method} {request.url.path[:200]}",
        next_step="see /docs",
    )
    return _answer(request, error.status_code, fault, error.headers or {})


def answer_defect(request: Request, error: Exception) -> JSONResponse:
    """The answer to anything unforeseen; the log has the traceback, the client has only the kind."""
    fault = Fault(
        type="InternalError",
        expected="an answer",
        found=f"a defect of the gateway ({type(error).__name__})",
        next_step="report it with the request id; the gateway's log has the rest",
    )
    return _answer(request, 500, fault, {})


def _answer(request: Request, status: int, fault: Fault, headers: Mapping[str, Any]) -> JSONResponse:
    body = ErrorAnswer(request_id=caller_of(request.scope).request_id, error=fault)
    return JSONResponse(body.model_dump(), status_code=status, headers=dict(headers))
