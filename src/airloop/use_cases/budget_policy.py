"""What a use case may cost: a part of its spec.

Belongs here: the shape of these choices. Does not belong here: what was spent (`airloop.cost`), or how many
trainings may be requested (`Retraining`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from airloop.use_cases.part import SpecPart


class Budget(SpecPart):
    """What all of a use case's tasks may cost together, in the currency of the price table."""

    per_week: float = Field(gt=0)
    """Within any seven days."""
    when_exceeded: Literal["refuse", "alert"] = "refuse"
    """What becomes of a training that would, at the usual price of one, spend more. What watches and serves
    goes on in any case; whoever looks after the use case is told."""
