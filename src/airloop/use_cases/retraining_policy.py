"""When a use case's model is trained again though nobody asked: a part of its spec.

Belongs here: the shape of these choices. Does not belong here: deciding (`airloop.retraining`), or the weekly
schedule (`Schedules.training`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, Self

from pydantic import Field, model_validator

from airloop.use_cases.part import SpecPart

DRIFT: Final = "drift"
DECAY: Final = "decay"
NEW_EVENTS: Final = "new_events"
CAUSES: Final = (DRIFT, DECAY, NEW_EVENTS)
"""What may be reason to train; also what a person can silence."""


class Retraining(SpecPart):
    """What is reason enough to train a candidate, and how often that may be."""

    on_drift: bool = True
    """When a feature or the predictions are an alarm (`Monitoring.drift`)."""
    on_decay: bool = True
    """When the champion's answers are (`Monitoring.decay`)."""
    after_new_events: int | None = Field(None, ge=1)
    """When so many events happened, and their labels are due, since the data that the newest candidate was
    judged on. Needs `event_table`."""
    cool_down: timedelta = timedelta(days=7)
    """After a request, or a training that somebody else started, nothing is requested for so long: a rollout
    takes its time, and what alarmed goes on alarming until it is over. Each candidate in a row that did not
    become the champion doubles it: the next one would learn from nearly the same data. A week is from the
    simulation of 2013 (ADR 30): shorter, and it trains as often as every Monday."""
    trainings_per_week: int = Field(3, ge=1)
    """Whoever started them; of more, nothing is requested."""
    price_per_week: float | None = Field(None, gt=0)
    """In the currency of the price table (the setting `prices`), which it needs: nothing is requested that
    would, at the usual price of a training, cost more within a week."""
    most_losers: int = Field(5, ge=1)
    """After so many candidates in a row that did not become the champion nothing is requested until one does:
    what they have in common a person has to find."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.cool_down <= timedelta(0):
            raise ValueError(f"cool_down must be longer than nothing, found {self.cool_down}")
        return self
