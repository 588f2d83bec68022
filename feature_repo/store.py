"""Opens the feature store: Spark offline over Iceberg, SQLite online, a SQL registry.

Belongs here: where Feast keeps things in this deployment. Does not belong here: any feature's definition.
The registry is SQL because Feast's file registry is rewritten in place without a lock.
"""

from __future__ import annotations

import os

os.environ["FEAST_USAGE"] = "False"  # read when the package is imported, which the next lines do

from feast import FeatureStore
from feast.infra.offline_stores.contrib.spark_offline_store.spark import SparkOfflineStoreConfig
from feast.infra.online_stores.sqlite import SqliteOnlineStoreConfig
from feast.infra.registry.sql import SqlRegistryConfig
from feast.repo_config import RepoConfig

from airloop.settings import Settings

PROJECT = "airloop"
REGISTRY_CACHE_SECONDS = 30


def open_store(settings: Settings) -> FeatureStore:
    """The deployment's feature store. Offline reads need a Spark session to be open already."""
    settings.feast_dir.mkdir(parents=True, exist_ok=True)
    return FeatureStore(
        config=RepoConfig(
            project=PROJECT,
            provider="local",
            registry=SqlRegistryConfig(
                registry_type="sql",
                path=f"sqlite:///{settings.feast_dir / 'registry.db'}",
                cache_ttl_seconds=REGISTRY_CACHE_SECONDS,
            ),
            offline_store=SparkOfflineStoreConfig(type="spark"),
            online_store=SqliteOnlineStoreConfig(type="sqlite", path=str(settings.feast_dir / "online.db")),
            entity_key_serialization_version=3,
        )
    )
