"""Opens the online half of the feature store: for the gateway, which reads single rows and needs no Spark.

Belongs here: where online values and the registry are in this deployment. Does not belong here: offline reads
(`feature_repo.store`, which adds Spark to what is said here).
"""

from __future__ import annotations

import os

os.environ["FEAST_USAGE"] = "False"  # read when the package is imported, which the next lines do

from feast import FeatureStore
from feast.infra.registry.sql import SqlRegistryConfig
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from airloop.settings import Settings
from feature_repo.newest_wins_sqlite import NewestWinsSqliteOnlineStoreConfig

PROJECT = "airloop"
REGISTRY_CACHE_SECONDS = 30
REQUEST_TIMEOUT_SECONDS = 1.0
"""A client waits for the gateway: longer than this, a store that does not answer counts as down."""
JOB_TIMEOUT_SECONDS = 60.0


def open_online_store(settings: Settings) -> FeatureStore:
    """The deployment's feature store, for online reads.

    Its copy of the registry is read again only when it is told to (`refresh_registry`): by itself, Feast does
    it within whatever read comes then, and every other read waits.
    """
    return FeatureStore(
        config=repo_config(settings, registry_cache_seconds=0, timeout_seconds=REQUEST_TIMEOUT_SECONDS)
    )


def repo_config(
    settings: Settings,
    offline_store: FeastConfigBaseModel | None = None,
    registry_cache_seconds: int = REGISTRY_CACHE_SECONDS,
    timeout_seconds: float = JOB_TIMEOUT_SECONDS,
) -> RepoConfig:
    """Feast's configuration: a SQL registry, Redis online where the settings name one, else SQLite.

    Redis has `timeout_seconds` for each connection and answer, unless the settings say otherwise.
    The registry is SQL because Feast's file registry is rewritten in place without a lock.
    """
    settings.feast_dir.mkdir(parents=True, exist_ok=True)
    return RepoConfig(
        project=PROJECT,
        provider="local",
        registry=SqlRegistryConfig(
            registry_type="sql",
            path=settings.feast_registry_url,
            cache_ttl_seconds=registry_cache_seconds,
        ),
        online_store=_online_store(settings, timeout_seconds),
        entity_key_serialization_version=3,
        **({"offline_store": offline_store} if offline_store else {}),
    )


def _online_store(settings: Settings, timeout_seconds: float) -> FeastConfigBaseModel:
    if settings.redis_connection is None:
        return NewestWinsSqliteOnlineStoreConfig(path=str(settings.feast_dir / "online.db"))
    # Only here: who keeps online values in SQLite needs no Redis client.
    from feature_repo.newest_wins_redis import NewestWinsRedisOnlineStoreConfig

    options = [
        f"{name}={timeout_seconds:g}"
        for name in ("socket_timeout", "socket_connect_timeout")
        if f"{name}=" not in settings.redis_connection
    ]
    return NewestWinsRedisOnlineStoreConfig(connection_string=",".join([settings.redis_connection, *options]))
