"""Why a version was asked for a prediction, and why it may have given none: the words of the prediction log.

Belongs here: those words. Does not belong here: who is asked when (`serving.routing`).
"""

from __future__ import annotations

from typing import Final

CHAMPION: Final = "champion"
"""It takes the traffic."""
CANARY: Final = "canary"
"""A candidate in its rollout that a share of the clients is answered by."""
FALLBACK: Final = "fallback"
"""The champion, in place of another version that failed."""
SHADOW: Final = "shadow"
"""It was given a copy; no client saw the answer."""
CONTROL: Final = "control"
"""An experiment's version A, the champion."""
TREATMENT: Final = "treatment"
"""An experiment's version B."""

NOT_FINITE: Final = "not_finite"
"""The answer was no number."""
LATE: Final = "late"
REFUSED: Final = "refused"
DOWN: Final = "down"
"""The model server, or the version on it, was not there: no fault of the version's."""
