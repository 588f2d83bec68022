"""Feast's view of airport_congestion: its airports are those of flight_delay."""

from __future__ import annotations

from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from feature_repo.flight_delay import ENTITIES
from feature_repo.views import FeastObject, feast_objects


def definitions(use_case: UseCase, settings: Settings) -> list[FeastObject]:
    """Everything to apply to the registry, in order."""
    return feast_objects(use_case, settings, ENTITIES)
