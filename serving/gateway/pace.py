"""How many copies a shadow gets: all, as long as it keeps up with the champion.

Belongs here: when a copy may be sent. Does not belong here: sending it (`attempts`).

The model server runs the shadow's copies on the processors that the champion's clients wait for. A version
that takes no longer than the champion may cost as much; one that takes several times as long would take them
from it, so it is asked one request at a time, with a rest after each. What is left out is counted, and what
is left is enough to see that it is slow.
"""

from __future__ import annotations

import threading
import time
from typing import Final

MOST_COPIES: Final = 4
"""Copies under way at once."""
SLOW_RATIO: Final = 2.0
SLACK_SECONDS: Final = 0.005
"""More than the ratio times the champion's time, and this, is slow."""
RESTS: Final = 3.0
"""A slow version rests so many times as long as its last answer took: it gets a quarter of a processor."""
WEIGHT: Final = 0.05
"""Of the newest time in each running mean."""


class Pace:
    """When a shadow may be asked; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._champion: float | None = None
        self._copy: float | None = None
        self._under_way = 0
        self._not_before = 0.0

    def champion_took(self, seconds: float) -> None:
        """The champion answered a client in so long."""
        with self._lock:
            self._champion = _mean(self._champion, seconds)

    def begin(self) -> bool:
        """Whether a copy may be sent now; then it counts as under way until `end`."""
        with self._lock:
            if self._is_slow():
                if self._under_way or time.monotonic() < self._not_before:
                    return False
            elif self._under_way >= MOST_COPIES:
                return False
            self._under_way += 1
            return True

    def end(self, seconds: float) -> None:
        """A copy came back, in whatever way, after so long."""
        with self._lock:
            self._under_way -= 1
            self._copy = _mean(self._copy, seconds)
            self._not_before = time.monotonic() + RESTS * seconds

    def _is_slow(self) -> bool:
        return (
            self._copy is not None
            and self._champion is not None
            and self._copy > SLOW_RATIO * self._champion + SLACK_SECONDS
        )


def _mean(before: float | None, seconds: float) -> float:
    return seconds if before is None else before + WEIGHT * (seconds - before)
