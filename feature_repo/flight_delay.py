"""Feast's view of flight_delay: its entities, a feature view per feature table, one feature service."""

from __future__ import annotations

from feast import Entity, FeatureService, FeatureView
from feast.value_type import ValueType

from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from feature_repo.views import batch_view

ENTITIES = {
    "origin": "airport of departure (IATA code)",
    "dest": "airport of arrival (IATA code)",
    "carrier": "airline (IATA code)",
    "tail_number": "registration of the plane",
}


def definitions(use_case: UseCase, settings: Settings) -> list[Entity | FeatureView | FeatureService]:
    """Everything to apply to the registry, in order."""
    entities = {
        name: Entity(name=name, join_keys=[name], value_type=ValueType.STRING, description=description)
        for name, description in ENTITIES.items()
    }
    views = [batch_view(table, entities, settings) for table in use_case.feature_tables]
    service = FeatureService(name=use_case.feature_service, features=views, owner=use_case.owner)
    return [*entities.values(), *views, service]
