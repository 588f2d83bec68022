"""The order in which versions are loaded and unloaded, so that a model stays available meanwhile.

Belongs here: the choice of the next step, as a pure function. Does not belong here: taking that step
(`manager`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class State(enum.Enum):
    """Where a version is in its life; the numbers are those of `ModelVersionStatus.State`."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class Standing:
    """What the next step depends on: a version, its state, and whether the configuration wants it."""

    version: int
    state: State
    aspired: bool


@dataclass(frozen=True)
class Load:
    """Load this version next."""

    version: int


@dataclass(frozen=True)
class Unload:
    """Unload this version next."""

    version: int


def next_step(standings: Iterable[Standing]) -> Load | Unload | None:
    """The next step towards serving exactly the aspired versions; None when there is none to take.

    An unwanted version keeps serving until a wanted one is AVAILABLE, unless nothing is wanted at all. So a
    new version that fails to load leaves the old one serving. The highest waiting version loads first.
    """
    everything = tuple(standings)
    wanted = [standing for standing in everything if standing.aspired]
    superseded = [s.version for s in everything if not s.aspired and s.state is State.AVAILABLE]
    wanted_serves = any(standing.state is State.AVAILABLE for standing in wanted)
    if superseded and (not wanted or wanted_serves or len(superseded) > 1):
        return Unload(min(superseded))
    waiting = [standing.version for standing in wanted if standing.state is State.START]
    return Load(max(waiting)) if waiting else None
