"""Feast objects from a spec's feature tables, so that a column's name and type stand once.

Belongs here: the translation of one feature table into one feature view. Does not belong here: which
entities and views a use case has (its own file beside this one).
"""

from __future__ import annotations

from collections.abc import Mapping

from feast import Entity, FeatureView, Field
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.types import FeastType, Float64, Int64, String, UnixTimestamp

from airloop.settings import Settings
from airloop.use_cases.spec import FeatureTable

TYPES: Mapping[str, FeastType] = {
    "string": String,
    "long": Int64,
    "double": Float64,
    "timestamp": UnixTimestamp,
}
EVENT_TIMESTAMP = "event_timestamp"


def batch_view(table: FeatureTable, entities: Mapping[str, Entity], settings: Settings) -> FeatureView:
    """The feature view over the Iceberg table `features.<name>`."""
    return FeatureView(
        name=table.name,
        entities=[entities[name] for name in table.entities],
        ttl=table.time_to_live,
        schema=[
            *(Field(name=name, dtype=String) for name in table.entities),
            *(Field(name=name, dtype=TYPES[type_]) for name, type_ in table.features.items()),
        ],
        source=SparkSource(
            name=f"{table.name}_source",
            table=f"{settings.catalog_name}.features.{table.name}",
            timestamp_field=EVENT_TIMESTAMP,
        ),
        online=True,
    )
