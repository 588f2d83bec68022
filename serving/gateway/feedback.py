"""Feedback: outcomes of predictions, told by whoever learns them.

Belongs here: the body's form, and keeping what it says. Does not belong here: joining outcomes to
predictions (`airloop.prediction_log`), or HTTP (`app`).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StrictInt,
    StringConstraints,
    ValidationError,
    create_model,
)

from airloop.prediction_log.outcome import OutcomeRecord
from airloop.prediction_log.spool import Spool
from airloop.prediction_request import FieldProblem, RequestError
from airloop.use_cases.spec import UseCase
from airloop.use_cases.target import Target
from serving.gateway import problems
from serving.gateway.request_context import Caller, Metrics

MOST_OUTCOMES: Final = 256
_MOST_PROBLEMS: Final = 20


class _Outcome(BaseModel):
    """The outcome of one prediction; its `label` is of the use case's kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request_id: Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9._:/+=-]{1,128}$")] = (
        Field(description="the id in the prediction's answer", examples=["0b7e4a1c52d34f0f9a3c7a1de0f5b6aa"])
    )
    instance: Annotated[StrictInt, Field(ge=0, lt=MOST_OUTCOMES)] = Field(
        0, description="number of the instance within a batch, from 0"
    )
    observed_at: AwareDatetime | None = Field(
        None, description="when it was known; by default now", examples=["2013-11-06T02:10:00Z"]
    )


class Kept(BaseModel):
    """What was told is on the disk."""

    request_id: str
    use_case: str
    kept: int


@cache
def feedback_model(target: Target) -> type[BaseModel]:
    """The form of a body: `outcomes`, each with a `label` as `target` has it."""
    label = _label_of(target)
    field = Field(description=label.description, examples=[label.example])
    outcome: Any = create_model("Outcome", __base__=_Outcome, label=(label.type, field))
    return create_model(
        "Feedback",
        __doc__="Outcomes of predictions.",
        __config__=ConfigDict(extra="forbid", frozen=True),
        outcomes=(list[outcome], Field(min_length=1, max_length=MOST_OUTCOMES)),
    )


def body_schema(target: Target) -> dict[str, Any]:
    """The form of a body as a JSON schema that refers to nothing outside it."""
    schema = feedback_model(target).model_json_schema()
    definitions = schema.pop("$defs")
    schema["properties"]["outcomes"]["items"] = definitions["Outcome"]
    return schema


def example(target: Target) -> dict[str, Any]:
    """A body."""
    request_id = "0b7e4a1c52d34f0f9a3c7a1de0f5b6aa"
    return {"outcomes": [{"request_id": request_id, "label": _label_of(target).example}]}


def keep(use_case: UseCase, body: bytes, caller: Caller, spool: Spool | None, metrics: Metrics) -> Kept:
    """Keep the outcomes in a body, all or none; raises `Problem`.

    An outcome may be told before its prediction has landed, and twice: what is told last counts.
    """
    target = use_case.label.target
    try:
        told: Any = feedback_model(target).model_validate_json(body)
    except ValidationError as error:
        raise problems.invalid_request(_request_error(error, target)) from None
    now = datetime.now(UTC)
    records = [
        OutcomeRecord(
            request_id=outcome.request_id,
            instance=outcome.instance,
            use_case=use_case.name,
            label=target.number_of(outcome.label),
            observed_at=outcome.observed_at or now,
            received_at=now,
            caller=caller.name,
        )
        for outcome in told.outcomes
    ]
    if spool is None or not spool.append(records):
        raise problems.not_kept("outcomes")
    metrics.outcomes.labels(use_case.name).inc(len(records))
    return Kept(request_id=caller.request_id, use_case=use_case.name, kept=len(records))


class _Label(NamedTuple):
    """The field `label` of an outcome."""

    type: Any
    description: str
    example: int | float | str


def _label_of(target: Target) -> _Label:
    if target.kind == "binary":
        return _Label(Literal[0, 1], "1 if what was predicted came true", 1)
    if target.kind == "multiclass":
        return _Label(Literal[target.classes], "the class that it was", target.classes[0])
    return _Label(FiniteFloat, f"what it was, in {target.unit}", 12.5)


def _request_error(error: ValidationError, target: Target) -> RequestError:
    found = []
    for item in error.errors(include_url=False, include_context=False)[:_MOST_PROBLEMS]:
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"])
        what = repr(item["input"])[:100] if item["type"] != "missing" else "nothing"
        expected = f"{item['msg']}; a body is like {json.dumps(example(target))}"
        found.append(FieldProblem(place.lstrip("."), expected, what, "correct it and send the whole again"))
    is_object = not any(item["type"] in ("json_invalid", "model_type") for item in error.errors())
    return RequestError(tuple(found), is_object=is_object)
