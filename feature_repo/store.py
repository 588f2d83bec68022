"""Opens the whole feature store: Spark offline over Iceberg, and the deployment's online store and registry.

Belongs here: where Feast keeps things offline. Does not belong here: any feature's definition, or the online
half alone (`feature_repo.online`).
"""

from __future__ import annotations

from feast import FeatureStore
from feast.infra.offline_stores.contrib.spark_offline_store.spark import SparkOfflineStoreConfig

from airloop.settings import Settings
from feature_repo.online import repo_config


def open_store(settings: Settings) -> FeatureStore:
    """The deployment's feature store. Offline reads need a Spark session to be open already."""
    return FeatureStore(config=repo_config(settings, SparkOfflineStoreConfig(type="spark")))
