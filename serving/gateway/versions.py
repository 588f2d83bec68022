"""Which version a request is answered by, and which one gets a copy.

Belongs here: that choice, from the routing. Does not belong here: what the routing says
(`serving.routing`), or asking the version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from airloop.prediction_log import variants
from airloop.prediction_request import PredictionRequest
from airloop.routing_document import Routing
from airloop.use_cases.spec import UseCase
from serving.model_server_client import CHAMPION
from serving.routing import draw


@dataclass(frozen=True)
class Choice:
    """Who answers."""

    version: int | str
    """A number, or the champion's label."""
    variant: str
    shadow: int | None = None
    """Who gets a copy of what the champion answers."""
    unit: str | None = None
    """What was drawn by, hashed with the split's salt; none where nothing was drawn."""


def choose(
    routing: Routing, use_case: UseCase, requests: Sequence[PredictionRequest], request_id: str
) -> Choice:
    """Who answers `requests`, which are answered by one version, whatever they are.

    A single request is drawn by its unit (`Rollout.sticky_by`), so that whoever asks again gets the same
    version. A batch is of many units: it is drawn by its id for a canary, and takes no part in an
    experiment, which compares units.
    """
    split = routing.split
    if split is None:
        return Choice(CHAMPION, variants.CHAMPION, routing.shadow)
    single = len(requests) == 1
    if split.experiment is not None and not single:
        return Choice(CHAMPION, variants.CHAMPION, routing.shadow)
    unit = unit_of(use_case, requests[0]) if single else request_id
    drawn = draw(split.salt, unit) < split.share
    hashed = hashlib.sha256(f"{split.salt}\0{unit}".encode()).hexdigest()[:16]
    if split.experiment is not None:
        if drawn:
            return Choice(split.version, variants.TREATMENT, None, hashed)
        return Choice(CHAMPION, variants.CONTROL, routing.shadow, hashed)
    if drawn:
        return Choice(split.version, variants.CANARY, None, hashed)
    return Choice(CHAMPION, variants.CHAMPION, routing.shadow, hashed)


def unit_of(use_case: UseCase, request: PredictionRequest) -> str:
    """What requests must agree in to get the same version: entities and event, or what the spec says."""
    names = use_case.rollout.sticky_by or (*use_case.entities, use_case.event_field)
    values = [request.fields.get(name) for name in names]
    return json.dumps(
        [value.timestamp() if isinstance(value, datetime) else value for value in values], sort_keys=True
    )
