"""How a use case's candidate becomes the champion, and what traffic must not suffer: parts of its spec.

Belongs here: the shape of these choices. Does not belong here: the rollout (`serving`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from airloop.use_cases.part import Identifier, SpecPart


class Guardrails(SpecPart):
    """What traffic must not suffer from a candidate, however good its predictions are."""

    max_error_rate: float = Field(0.001, ge=0, lt=1)
    """Share of requests without a usable answer; more is forgiven only where the champion fails too."""
    max_latency_ratio: float = Field(1.5, ge=1)
    """Median and 99th percentile of the model server's time, beside the champion's in the same minutes."""
    latency_slack_seconds: float = Field(0.01, ge=0)
    """Slower than the champion by less than this is not slow."""
    max_population_stability_index: float = Field(0.25, gt=0)
    """How far the distribution of its predictions may be from the champion's. Above 0.25 is by convention a
    major shift (Siddiqi, Credit Risk Scorecards, 2006)."""
    max_missing_rate_excess: float = Field(0.05, ge=0, le=1)
    """How much larger the share of predictions that lack a feature may be than the champion's."""
    max_loss_excess: float = Field(0.0, ge=0)
    """By how much its loss (`Target.loss`) may be above the champion's on the same requests, once labels are
    in."""
    min_labels: int = Field(200, ge=2)
    """Labels before quality is judged."""


class Rollout(SpecPart):
    """How a registered candidate becomes the champion."""

    replayed_requests: int = Field(ge=1)
    """Recorded requests that the model server must answer as training predicted."""
    max_absolute_difference: float = Field(gt=0)
    load_timeout_seconds: float = Field(gt=0)
    max_memory_mebibytes: float = Field(2048.0, gt=0)
    """What a model server may need with the candidate alone."""
    max_single_row_p99_milliseconds: float = Field(100.0, gt=0)
    """Of a model server with the candidate alone, one request at a time."""
    canary_percent: tuple[int, ...] = (5, 25, 50)
    """The share of clients that each canary step gives to the candidate."""
    bake: timedelta = timedelta(minutes=10)
    """How long the shadow and each canary step last at least."""
    watch: timedelta = timedelta(minutes=30)
    """How long a new champion is held against the one before, and given up for it."""
    look_every: timedelta = timedelta(seconds=30)
    longest_hold: timedelta = timedelta(hours=24)
    """A stage that can still decide nothing then is taken for a failure."""
    min_requests: int = Field(200, ge=1)
    """Answers of the candidate before a stage may end well."""
    when_quiet: Literal["go_on", "hold"] = "hold"
    """What a stage does when its time is over and there were fewer: what little traffic there is risks
    little, or nothing goes on unseen."""
    candidate_timeout_seconds: float = Field(0.25, gt=0)
    """Then the champion answers a canary's client; a copy for a shadow may take ten times as long."""
    sticky_by: tuple[Identifier, ...] = ()
    """Request fields; requests that agree in them get the same version. Entities and event by default."""
    approval: bool = False
    """Whether a person must approve before a candidate becomes the champion."""
    guardrails: Guardrails = Guardrails()

    @model_validator(mode="after")
    def _check(self) -> Self:
        percent = list(self.canary_percent)
        if percent != sorted(set(percent)) or any(not 0 < step < 100 for step in percent):
            raise ValueError(f"canary_percent must rise between 0 and 100, found {percent}")
        return self
