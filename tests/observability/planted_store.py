"""The small feature store, which fails as long as a file is there; the gateway's process imports this."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from feast import FeatureStore

from airloop.settings import Settings
from tests.serving.gateway.small_store import open_small_store


def broken_by(settings: Settings) -> Path:
    """The file whose existence breaks the store."""
    return settings.state_dir / "broken"


def open_planted_store(settings: Settings) -> FeatureStore:
    """The store; what it raises is two lines long."""
    store = open_small_store(settings)
    read = store.get_online_features

    def read_or_fail(*arguments: Any, **options: Any) -> Any:
        if broken_by(settings).exists():
            raise ConnectionError("planted failure\nof two lines")
        return read(*arguments, **options)

    store.get_online_features = read_or_fail
    return store
