"""The routing document: which versions beside the champion get traffic, and for what.

Belongs here: the document's shape, and its file. Does not belong here: writing or following it
(`serving.routing`).
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from airloop.airflow_run import BY_HAND


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Split(_Part):
    """A share of the clients that another version answers."""

    version: int
    share: float = Field(gt=0, lt=1)
    salt: str
    """Another salt draws the clients anew."""
    experiment: str | None = None
    """The experiment's name; none for a canary."""


class Stage(_Part):
    """What a rollout is doing."""

    run: str
    """The Airflow run, which owns the rollout."""
    version: int
    name: str
    """`shadow`, `canary_<percent>` or `watch`."""
    since: datetime
    rollout_since: datetime
    """When the rollout's first stage began."""
    looked_at: datetime
    """When its run last looked: one that does not look any more has no claim."""


class Experiment(_Part):
    """Two versions side by side, until a time that was fixed before."""

    name: str
    run: str
    """The Airflow run, which owns it."""
    version: int
    """B; A is the champion."""
    champion: int
    since: datetime
    until: datetime


class GivenUp(_Part):
    """What a run took traffic from, for when it is tried again: the rest of it may not have been done."""

    candidate: int | None = None
    """A version beside the champion."""
    champion: int | None = None
    """One that was the champion."""
    target: int
    """The champion from then on."""
    reason: str = ""


class Routing(_Part):
    """What versions other than the champion get; nothing, by default."""

    shadow: int | None = None
    """A version that gets a copy of what the champion answers."""
    split: Split | None = None
    rollout: Stage | None = None
    experiment: Experiment | None = None
    """What the split is for, if it is not a canary's."""
    changed_by: str = ""
    """The Airflow run that wrote this."""
    given_up: dict[str, GivenUp] = {}
    """By Airflow run, the newest last."""

    def gave_up(self, run: str) -> GivenUp | None:
        """What `run` took traffic from before; nothing for jobs by hand, which have no name of their own."""
        return self.given_up.get(run) if run != BY_HAND else None


def routing_file(models_dir: Path, model: str) -> Path:
    """Where the routing of `model` is."""
    return models_dir / f"{model}.routing.json"
