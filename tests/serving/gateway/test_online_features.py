"""Reading the feature registry again holds up one request, and no other."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from feast import FeatureStore

from airloop.settings import Settings
from airloop.use_cases.flight_delay import USE_CASE as SPEC
from feature_repo.online import open_online_store
from serving.gateway import online_features
from serving.gateway.online_features import OnlineFeatures
from tests.serving.gateway.conftest import Loop
from tests.serving.gateway.small_store import open_small_store


def test_while_one_request_reads_the_registry_others_go_on(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_small_store(loop.settings)
    features = OnlineFeatures(lambda: store)
    features.service(SPEC.feature_service)
    refresh, reading, go_on = store.refresh_registry, threading.Event(), threading.Event()
    times = []

    def slow() -> None:
        times.append(time.monotonic())
        reading.set()
        assert go_on.wait(20)
        refresh()

    monkeypatch.setattr(store, "refresh_registry", slow)
    monkeypatch.setattr(online_features, "_KNOWN_SECONDS", 0.0)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(features.service, SPEC.feature_service)
        assert reading.wait(20)
        for _ in range(5):
            assert features.service(SPEC.feature_service).name == SPEC.feature_service
        assert not first.done()
        assert len(times) == 1
        go_on.set()
        assert first.result(20).name == SPEC.feature_service


def test_the_gateways_store_does_not_read_the_registry_by_itself(tmp_path: Path) -> None:
    store: FeatureStore = open_online_store(Settings(state_dir=tmp_path))
    assert store.registry.cached_registry_proto_ttl.total_seconds() == 0, "0 is for ever, to Feast"
