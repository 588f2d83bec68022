"""A prediction request, from the JSON body that a client sends to the inputs that the model takes.

Belongs here: the pure rules that serving shares with whoever builds or replays a request: the body's schema
and validation, entity keys, the prediction time, which feature values count, and the model's inputs. Does
not belong here: HTTP, the feature store or the model server.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StringConstraints,
    ValidationError,
)
from pydantic import create_model as create_pydantic_model

from airloop.errors import AirloopError
from airloop.use_cases.spec import ModelInput, OnDemandView, RequestField, UseCase

InputValue = str | float | int
"""One value of a model input: text, a number (NaN when missing), or whole seconds (0 when missing)."""
FeatureScalar = str | float | int | datetime | None

ON_DEMAND_TIME: Final = "prediction_time_seconds"
"""What every on-demand function is given beside its features and request fields."""

MISSING: Final[Mapping[str, InputValue]] = {"string": "", "double": math.nan, "instant": 0, "local_time": 0}
"""What stands for a missing value, by type of model input."""

BATCH_FIELD: Final = "instances"
"""The field of a batch's body that holds its requests."""

EVENT_DIGITS: Final = 32
"""Hexadecimal digits of an event's name."""

_MOST_PROBLEMS: Final = 20  # an answer must not be many times as long as the request
_DATE_THEN_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d")
_EARLIEST: Final = datetime(1971, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_EXPECTED: Final = {
    "string": "a text of 1 to 256 characters",
    "integer": "a whole number",
    "number": "a finite number",
    "datetime": "an ISO 8601 time with an offset, between 1971 and 2199, such as {example!r}",
}


def _begins_with_a_date(value: object) -> object:
    # pydantic would also read a number, or a text of digits, as seconds since the epoch.
    if not isinstance(value, str) or not _DATE_THEN_TIME.match(value):
        raise ValueError("a text of date, T, time of day and offset")
    return value


_TYPES: Final[Mapping[str, Any]] = {
    "string": Annotated[str, StringConstraints(strict=True, min_length=1, max_length=256)],
    "integer": Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)],
    "number": Annotated[float, Field(strict=True, allow_inf_nan=False)],
    "datetime": Annotated[
        AwareDatetime, Field(ge=_EARLIEST, lt=_LATEST), BeforeValidator(_begins_with_a_date)
    ],
}
_OPTIONAL_STRING: Final = Annotated[str, StringConstraints(strict=True, max_length=256)]


@dataclass(frozen=True)
class FieldProblem:
    """What is wrong with one field of a request (an empty name: with the body as a whole)."""

    field: str
    expected: str
    found: str
    next_step: str


class RequestError(AirloopError):
    """A prediction request breaks its use case's schema.

    `problems` has every field that is wrong; `is_object` tells whether the body was a JSON object at all.
    """

    def __init__(self, problems: tuple[FieldProblem, ...], *, is_object: bool = True) -> None:
        self.problems = problems
        self.is_object = is_object
        super().__init__(
            expected="; ".join(f"{item.field or 'body'}: {item.expected}" for item in problems),
            found="; ".join(f"{item.field or 'body'}: {item.found}" for item in problems),
            next_step=problems[0].next_step,
        )


@dataclass(frozen=True)
class PredictionRequest:
    """A valid request."""

    fields: Mapping[str, str | int | float | datetime | None]
    """Every request field; None for an optional one that was not given."""
    entities: Mapping[str, str | int]
    """The join keys, by entity; one that was not given is left out."""
    prediction_time: datetime
    """In UTC. Nothing later than this may be known to a feature."""


@dataclass(frozen=True)
class StoredFeature:
    """A feature's value as an online store holds it."""

    value: FeatureScalar
    event_time: datetime | None
    """From when on it was true, with a time zone; None where the store has nothing."""


def request_model(use_case: UseCase) -> type[BaseModel]:
    """The pydantic model of the use case's request body; the one place where its schema is made."""
    return _request_model(use_case.name, use_case.description, use_case.request)


def example_body(use_case: UseCase) -> dict[str, str | int | float]:
    """A request body made of the spec's examples."""
    return {item.name: item.example for item in use_case.request}


def example_request(use_case: UseCase) -> PredictionRequest:
    """The request made of the spec's examples; raises `RequestError` when they break their own schema."""
    return parse_request(use_case, json.dumps(example_body(use_case)))


def parse_request(use_case: UseCase, body: bytes | str) -> PredictionRequest:
    """The request in a JSON body; raises `RequestError` naming every field that is wrong."""
    try:
        parsed = request_model(use_case).model_validate_json(body)
    except ValidationError as error:
        raise _request_error(use_case, error) from None
    # An optional text may be given as "": the model knows the empty text as unknown, as if it were not given.
    fields = {name: None if value == "" else value for name, value in parsed}
    event_time = fields[use_case.event_field]
    if not isinstance(event_time, datetime):
        raise RequestError(
            (_problem(_field(use_case, use_case.event_field), found="nothing", next_step="add it"),)
        )
    return PredictionRequest(
        fields=fields,
        entities={key: value for key in use_case.entities if (value := fields[key]) is not None},
        prediction_time=event_time.astimezone(UTC) - use_case.prediction_lead,
    )


def event_of(use_case: UseCase, request: PredictionRequest) -> str:
    """What names the event that `request` is about: the same for every request about it.

    A hash of `UseCase.event_fields`, instants as seconds since the epoch. Spark makes the same of a table's
    rows (`spark_jobs.labels`), so that predictions and labels join.
    """
    values = (request.fields[field.name] for field in use_case.event_fields)
    texts = (
        str(int(value.timestamp())) if isinstance(value, datetime) else "" if value is None else str(value)
        for value in values
    )
    return hashlib.sha256("\x1f".join(texts).encode()).hexdigest()[:EVENT_DIGITS]


def parse_batch(use_case: UseCase, body: bytes | str, most: int) -> tuple[PredictionRequest, ...]:
    """The requests in the JSON body `{"instances": [...]}`, `most` at most.

    All or none: raises `RequestError` naming the fields that are wrong, as `instances[<number>].<field>`.
    """
    expected = f'a JSON object {{"instances": [...]}} with 1 to {most} requests'
    try:
        document = json.loads(body)
    except ValueError as error:
        raise _not_a_batch(expected, str(error), is_object=False) from None
    if not isinstance(document, dict):
        raise _not_a_batch(expected, "JSON of another type", is_object=False)
    instances = document.get(BATCH_FIELD)
    if set(document) != {BATCH_FIELD} or not isinstance(instances, list):
        raise _not_a_batch(expected, f"an object with {_shortened(', '.join(document) or 'no field')}")
    if not 1 <= len(instances) <= most:
        raise _not_a_batch(expected, f"{len(instances)} of them")
    requests: list[PredictionRequest] = []
    problems: list[FieldProblem] = []
    for number, instance in enumerate(instances):
        try:
            requests.append(parse_request(use_case, json.dumps(instance)))
        except RequestError as error:
            problems += (
                replace(item, field=f"{BATCH_FIELD}[{number}]{item.field and '.'}{item.field}")
                for item in error.problems
            )
        if len(problems) >= _MOST_PROBLEMS:
            break
    if problems:
        raise RequestError(tuple(problems[:_MOST_PROBLEMS]))
    return tuple(requests)


def features_in_force(
    use_case: UseCase, request: PredictionRequest, stored: Mapping[str, StoredFeature]
) -> dict[str, FeatureScalar]:
    """The value of each feature of the use case at the prediction time; None where it is missing.

    The meaning is that of the offline point-in-time join: a value counts until its table's time to live has
    passed, counted to the prediction time (the last moment included), and a row without one of the table's
    entity keys joins nothing. A NaN is a missing value.
    """
    values: dict[str, FeatureScalar] = {}
    for table in use_case.feature_tables:
        known = all(key in request.entities for key in table.entities)
        for name in table.features:
            found = stored.get(name)
            in_force = (
                known
                and found is not None
                and found.event_time is not None
                and request.prediction_time - found.event_time <= table.time_to_live
            )
            value = found.value if in_force and found is not None else None
            values[name] = None if isinstance(value, float) and math.isnan(value) else value
    return values


def on_demand_fields(use_case: UseCase, view: OnDemandView) -> dict[str, Literal["seconds", "string"]]:
    """The names and kinds of the values that the function of `view` gets from a request, but for the time."""
    fields: dict[str, Literal["seconds", "string"]] = {}
    for name in view.request:
        if _field(use_case, name).type == "datetime":
            fields |= {f"{name}_seconds": "seconds", f"{name}_local_seconds": "seconds"}
        else:
            fields[name] = "string"
    return fields


def on_demand_values(request: PredictionRequest) -> dict[str, str | int | float | None]:
    """What on-demand functions are given of `request`: each datetime in seconds, as instant and wall time."""
    values: dict[str, str | int | float | None] = {
        ON_DEMAND_TIME: math.floor(request.prediction_time.timestamp())
    }
    for name, value in request.fields.items():
        if isinstance(value, datetime):
            values[f"{name}_seconds"] = math.floor(value.timestamp())
            values[f"{name}_local_seconds"] = math.floor(value.replace(tzinfo=UTC).timestamp())
        else:
            values[name] = value
    return values


def assemble_inputs(
    use_case: UseCase, request: PredictionRequest, features: Mapping[str, FeatureScalar]
) -> dict[str, InputValue]:
    """The value of every model input, by name, with what is missing in the form that the model knows."""
    inputs: dict[str, InputValue] = {}
    for item in use_case.inputs:
        given = features.get(item.name) if item.request_field is None else request.fields[item.request_field]
        inputs[item.name] = _input_value(item, given)
    return inputs


def missing_features(use_case: UseCase, features: Mapping[str, FeatureScalar]) -> tuple[str, ...]:
    """The model inputs that are features and have no value, in the spec's order."""
    wanted = (item.name for item in use_case.inputs if item.request_field is None)
    return tuple(name for name in wanted if features.get(name) is None)


@cache
def _request_model(name: str, description: str, request: tuple[RequestField, ...]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for item in request:
        described = Field(description=item.description, examples=[item.example])
        kind = _TYPES[item.type]
        if item.required:
            fields[item.name] = (Annotated[kind, described], ...)
        else:
            kind = _OPTIONAL_STRING if item.type == "string" else kind
            fields[item.name] = (Annotated[kind | None, described], None)
    title = "".join(word.capitalize() for word in name.split("_")) + "Request"
    config = ConfigDict(extra="forbid", frozen=True)
    return create_pydantic_model(title, __config__=config, __doc__=description, **fields)


def _input_value(item: ModelInput, value: FeatureScalar) -> InputValue:
    if value is None:
        return MISSING[item.type]
    match item.type:
        case "string":
            return str(value)
        case "double":
            return float(value) if not isinstance(value, datetime) else value.timestamp()
        case "instant":
            return math.floor(value.timestamp()) if isinstance(value, datetime) else int(value)
        case "local_time":
            if isinstance(value, datetime):
                return math.floor(value.replace(tzinfo=UTC).timestamp())
            return int(value)


def _field(use_case: UseCase, name: str) -> RequestField:
    return {item.name: item for item in use_case.request}[name]


def _problem(field: RequestField, *, found: str, next_step: str) -> FieldProblem:
    expected = _EXPECTED[field.type].format(example=field.example)
    return FieldProblem(field.name, f"{expected} ({field.description})", found, next_step)


def _request_error(use_case: UseCase, error: ValidationError) -> RequestError:
    fields = {item.name: item for item in use_case.request}
    problems: list[FieldProblem] = []
    for item in error.errors(include_url=False, include_context=False)[:_MOST_PROBLEMS]:
        if not item["loc"]:
            return RequestError((_body_problem(use_case, item["type"], item["msg"]),), is_object=False)
        name = str(item["loc"][0])
        if name not in fields:
            expected = f"only the fields {', '.join(fields)}"
            step = "remove it, or correct its name"
            problems.append(FieldProblem(_shortened(name), expected, "a field of this name", step))
        elif item["type"] == "missing":
            problems.append(_problem(fields[name], found="nothing", next_step=f"add the field {name!r}"))
        else:
            found = _shortened(repr(item["input"]))
            step = f"correct the field {name!r}; an example is {fields[name].example!r}"
            problems.append(_problem(fields[name], found=f"{found} ({item['msg']})", next_step=step))
    return RequestError(tuple(problems))


def _not_a_batch(expected: str, found: str, *, is_object: bool = True) -> RequestError:
    problem = FieldProblem(
        "", expected, found, "send such an object; the gateway's /docs page has an example"
    )
    return RequestError((problem,), is_object=is_object)


def _body_problem(use_case: UseCase, kind: str, message: str) -> FieldProblem:
    found = message if kind == "json_invalid" else "JSON of another type"
    return FieldProblem(
        field="",
        expected=f"a JSON object with the fields {', '.join(item.name for item in use_case.request)}",
        found=found,
        next_step="send one JSON object; the gateway's /docs page has an example",
    )


def _shortened(text: str, limit: int = 100) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
