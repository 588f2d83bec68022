"""How a use case's champion is watched: a part of its spec.

Belongs here: the shape of these choices. Does not belong here: watching (`airloop.monitoring`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Self

from pydantic import Field, model_validator

from airloop.use_cases.part import SpecPart


class Agreement(SpecPart):
    """How many windows, which do not overlap, must find something before it is an alarm."""

    agreeing: int = Field(2, ge=1)
    """How many of the last `windows` windows."""
    windows: int = Field(3, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.agreeing > self.windows:
            raise ValueError(f"agreeing ({self.agreeing}) must be at most windows ({self.windows})")
        return self

    def met(self, found: Sequence[bool]) -> bool:
        """Whether the newest of the windows (oldest first) was `found` to be so, and enough of the last."""
        return bool(found) and found[-1] and sum(found[-self.windows :]) >= self.agreeing


class DriftRule(Agreement):
    """When a feature has drifted, and when that is an alarm."""

    false_discovery_rate: float = Field(0.05, gt=0, lt=1)
    """Under no drift at all it is also the share of windows in which anything is an alarm."""
    least_distance: float = Field(0.1, ge=0, le=1)
    """Jensen-Shannon distance; 0.1 is also what Evidently calls drift."""


class DecayRule(Agreement):
    """When a champion answers worse than it did on its test days, and when that is an alarm."""

    least_label_share: float = Field(0.8, gt=0, le=1)
    """A window is judged once this share of its answers has a label; some events never get one."""
    min_labels: int = Field(200, ge=2)
    significance: float = Field(0.01, gt=0, lt=1)
    """How often a day like the test days may be called worse."""
    least_lost_share: float = Field(0.2, ge=0)
    """Of the gain over a base rate."""


class SkewRule(SpecPart):
    """When the features that were served are not those that training would have had."""

    most_unequal_share: float = Field(0.1, ge=0, lt=1)
    """Of a day's answers. Some always are: what is pushed as an hour ends takes minutes to arrive."""
    relative_tolerance: float = Field(1e-6, ge=0)
    """Of numbers, by the larger one; at least this much where both are below 1."""


class Monitoring(SpecPart):
    """What is compared with the champion's own window, each hour."""

    window: timedelta = timedelta(days=1)
    """Whole days: the reference is days, and an hour of the night is not like a day."""
    min_requests: int = Field(200, ge=1)
    """A window with fewer requests is not judged."""
    least_volume_share: float = Field(0.5, ge=0, le=1)
    """A window with a smaller share of the requests of the same window a week before has lost traffic."""
    drift: DriftRule = DriftRule()
    decay: DecayRule = DecayRule()
    skew: SkewRule = SkewRule()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.window < timedelta(days=1) or self.window % timedelta(days=1):
            raise ValueError(f"window must be whole days, found {self.window}")
        return self
