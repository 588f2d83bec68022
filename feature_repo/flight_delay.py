"""Feast's view of flight_delay: entities, a feature view per feature table, on-demand views, the services."""

from __future__ import annotations

from feast import Entity, FeatureService, FeatureView
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.value_type import ValueType

from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from feature_repo.views import feature_service, feature_view, on_demand_view

ENTITIES = {
    "origin": "airport of departure (IATA code)",
    "dest": "airport of arrival (IATA code)",
    "carrier": "airline (IATA code)",
    "tail_number": "registration of the plane",
}


def definitions(
    use_case: UseCase, settings: Settings
) -> list[Entity | FeatureView | OnDemandFeatureView | FeatureService]:
    """Everything to apply to the registry, in order."""
    entities = {
        name: Entity(name=name, join_keys=[name], value_type=ValueType.STRING, description=description)
        for name, description in ENTITIES.items()
    }
    views = {table.name: feature_view(table, entities, settings) for table in use_case.feature_tables}
    on_demand = [on_demand_view(view, views, use_case) for view in use_case.on_demand]
    services = {
        use_case.feature_service: (*use_case.features, *use_case.on_demand_features),
        **use_case.earlier_feature_services,
    }
    every = [*views.values(), *on_demand]
    return [
        *entities.values(),
        *every,
        *(feature_service(name, features, every, use_case.owner) for name, features in services.items()),
    ]
