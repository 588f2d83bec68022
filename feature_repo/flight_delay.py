"""Feast's view of flight_delay: what its features are about."""

from __future__ import annotations

from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from feature_repo.views import FeastObject, feast_objects

ENTITIES = {
    "origin": "airport of departure (IATA code)",
    "dest": "airport of arrival (IATA code)",
    "carrier": "airline (IATA code)",
    "tail_number": "registration of the plane",
}


def definitions(use_case: UseCase, settings: Settings) -> list[FeastObject]:
    """Everything to apply to the registry, in order."""
    return feast_objects(use_case, settings, ENTITIES)
