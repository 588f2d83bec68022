"""A feature store with a spec's own feature views, small enough for a test.

Belongs here: opening it, and writing rows. Does not belong here: TensorFlow; the gateway's process imports
this module for its store.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.infra.online_stores.sqlite import SqliteOnlineStoreConfig
from feast.infra.registry.sql import SqlRegistryConfig
from feast.repo_config import RepoConfig
from feast.types import Float64, Int64, String

from airloop.prediction_request import example_request
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase


def open_small_store(settings: Settings) -> FeatureStore:
    """A feature store with the same registry and online store as the deployment's, and files offline."""
    settings.feast_dir.mkdir(parents=True, exist_ok=True)
    return FeatureStore(
        config=RepoConfig(
            project="airloop",
            provider="local",
            registry=SqlRegistryConfig(
                registry_type="sql",
                path=f"sqlite:///{settings.feast_dir / 'registry.db'}",
                cache_ttl_seconds=30,
            ),
            offline_store={"type": "file"},
            online_store=SqliteOnlineStoreConfig(type="sqlite", path=str(settings.feast_dir / "online.db")),
            entity_key_serialization_version=3,
        )
    )


def apply_features(store: FeatureStore, spec: UseCase, folder: Path) -> None:
    """Register the spec's feature views and its feature service."""
    entities = {
        name: Entity(name=name, join_keys=[name], value_type=ValueType.STRING) for name in spec.entities
    }
    views = []
    for table in spec.feature_tables:
        types = {"double": Float64, "long": Int64, "string": String}
        views.append(
            FeatureView(
                name=table.name,
                entities=[entities[name] for name in table.entities],
                ttl=table.time_to_live,
                schema=[
                    *(Field(name=name, dtype=String) for name in table.entities),
                    *(Field(name=name, dtype=types[kind]) for name, kind in table.features.items()),
                ],
                source=FileSource(
                    name=f"{table.name}_source",
                    path=str(folder / f"{table.name}.parquet"),
                    timestamp_field="event_timestamp",
                ),
            )
        )
    for table in spec.feature_tables:
        empty = {name: pd.Series([], dtype="str") for name in table.entities}
        types = {"double": "float64", "long": "int64", "string": "str"}
        empty |= {name: pd.Series([], dtype=types[kind]) for name, kind in table.features.items()}
        empty["event_timestamp"] = pd.Series([], dtype="datetime64[us, UTC]")
        pd.DataFrame(empty).to_parquet(folder / f"{table.name}.parquet")
    # Only here: the gateway's process, which imports this module, has no Spark.
    from feature_repo.views import on_demand_view

    by_name = {view.name: view for view in views}
    on_demand = [on_demand_view(view, by_name, spec) for view in spec.on_demand]
    service = FeatureService(name=spec.feature_service, features=[*views, *on_demand])
    store.apply([*entities.values(), *views, *on_demand, service])


def write_features(
    store: FeatureStore,
    table: str,
    row: Mapping[str, str | float | int | None],
    at: datetime,
) -> None:
    """Put one row of a feature view into the online store, true from `at` on."""
    frame = pd.DataFrame({name: [value] for name, value in row.items()})
    frame["event_timestamp"] = pd.to_datetime([at], utc=True)
    store.write_to_online_store(table, frame)


def fill_features(store: FeatureStore, spec: UseCase) -> dict[str, float | int]:
    """Fresh values of every feature for the spec's example request; the values, by feature."""
    request = example_request(spec)
    written: dict[str, float | int] = {}
    for table in spec.feature_tables:
        row: dict[str, str | float | int | None] = {key: request.entities[key] for key in table.entities}
        for position, (name, kind) in enumerate(table.features.items()):
            written[name] = 1_383_600_000 if kind == "long" else 1.5 + position + len(written)
            row[name] = written[name]
        write_features(store, table.name, row, request.prediction_time - timedelta(minutes=30))
    return written
