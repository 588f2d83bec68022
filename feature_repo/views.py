"""Feast objects from a spec's feature tables, so that a column's name and type stand once.

Belongs here: the translation of feature tables into feature views, of on-demand views into Feast's, and of
lists of features into services. Does not belong here: what a use case's entities are (its own file beside
this one), or what an on-demand function computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from feast import Entity, FeatureService, FeatureView, Field
from feast.data_source import PushSource, RequestSource
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import FeastType, Float64, Int64, String, UnixTimestamp
from feast.value_type import ValueType

from airloop.dotted import load
from airloop.errors import SpecError
from airloop.prediction_request import ON_DEMAND_TIME, on_demand_fields
from airloop.settings import Settings
from airloop.use_cases.spec import FeatureTable, OnDemandView, UseCase

TYPES: Mapping[str, FeastType] = {
    "string": String,
    "long": Int64,
    "double": Float64,
    "timestamp": UnixTimestamp,
}
EVENT_TIMESTAMP = "event_timestamp"
FeastObject = Entity | FeatureView | OnDemandFeatureView | FeatureService


def feast_objects(
    use_case: UseCase, settings: Settings, descriptions: Mapping[str, str]
) -> list[FeastObject]:
    """Everything of `use_case` that the registry is to have, in the order in which it is applied.

    `descriptions` says of each entity what it is; raises `SpecError` for one that it lacks.
    """
    if lacking := [name for name in use_case.entities if name not in descriptions]:
        raise SpecError(
            expected=f"{use_case.feature_definitions} to describe every entity of {use_case.name}",
            found=f"nothing about {', '.join(lacking)}",
            next_step="say there what each of them is",
        )
    entities = {
        name: Entity(name=name, join_keys=[name], value_type=ValueType.STRING, description=descriptions[name])
        for name in use_case.entities
    }
    views = {table.name: feature_view(table, entities, settings) for table in use_case.feature_tables}
    on_demand = [on_demand_view(view, views, use_case) for view in use_case.on_demand]
    every = [*views.values(), *on_demand]
    services = dict(use_case.earlier_feature_services)
    if use_case.feature_service is not None:
        services[use_case.feature_service] = (*use_case.features, *use_case.on_demand_features)
    return [
        *entities.values(),
        *every,
        *(feature_service(name, features, every, use_case.owner) for name, features in services.items()),
    ]


def push_source_of(table: FeatureTable) -> str:
    """The name under which rows of `table` are pushed."""
    return f"{table.name}_push"


def feature_view(table: FeatureTable, entities: Mapping[str, Entity], settings: Settings) -> FeatureView:
    """The view over the Iceberg table `features.<name>`, which takes pushes where the spec says so."""
    batch = SparkSource(
        name=f"{table.name}_source",
        table=f"{settings.catalog_name}.features.{table.name}",
        timestamp_field=EVENT_TIMESTAMP,
    )
    return FeatureView(
        name=table.name,
        entities=[entities[name] for name in table.entities],
        ttl=table.time_to_live,
        schema=[
            *(Field(name=name, dtype=String) for name in table.entities),
            *(Field(name=name, dtype=TYPES[type_]) for name, type_ in table.features.items()),
        ],
        source=PushSource(name=push_source_of(table), batch_source=batch) if table.pushed else batch,
        online=True,
    )


def on_demand_view(
    view: OnDemandView, views: Mapping[str, FeatureView], use_case: UseCase
) -> OnDemandFeatureView:
    """Feast's view of `view`. The registry names its function, whose code comes with the deployment.

    Feast would keep the function's source there, and run that: without what else its module has, and with
    whatever somebody wrote into the registry's place.
    """
    function = load(view.function)
    asked = RequestSource(
        name=f"{view.name}_request",
        schema=[
            *(
                Field(name=name, dtype=Int64 if kind == "seconds" else String)
                for name, kind in on_demand_fields(use_case, view).items()
            ),
            Field(name=ON_DEMAND_TIME, dtype=Int64),
        ],
    )
    return OnDemandFeatureView(
        name=view.name,
        sources=[*(views[name] for name in view.tables), asked],
        schema=[Field(name=name, dtype=TYPES[type_]) for name, type_ in view.features.items()],
        mode="python",
        udf=function,
        udf_string=f"from {function.__module__} import {function.__name__}",
    )


def feature_service(
    name: str,
    features: Iterable[str],
    views: Iterable[FeatureView | OnDemandFeatureView],
    owner: str,
) -> FeatureService:
    """A service of just these features, whichever views they are of."""
    wanted = set(features)
    parts = []
    for view in views:
        names = [field.name for field in view.features if field.name in wanted]
        if names:
            parts.append(view[names])
    return FeatureService(name=name, features=parts, owner=owner)
