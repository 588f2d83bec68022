"""Fixtures: a gateway over HTTP, a small feature store and a model server process, shared by all tests."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from feast import FeatureStore

from airloop.settings import Settings
from airloop.use_cases.flight_delay import USE_CASE
from airloop.use_cases.spec import UseCase
from serving.gateway.access import Access
from serving.gateway.app import create_app
from serving.gateway.online_features import OnlineFeatures
from serving.model_config import ServedModel, config_message
from serving.model_server_client import CHAMPION, ModelServer
from tests.serving.gateway.small_store import apply_features, fill_features, open_small_store
from tests.serving.rollout.stack import free_port, model_server_process, save_model, wait_until

VERSION = 7


@dataclass(frozen=True)
class Loop:
    """What the gateway reads from: the settings, the store, the features written, the served SavedModel."""

    settings: Settings
    store: FeatureStore
    features: dict[str, float | int]
    model: Path


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The base URL of `app`, served over real HTTP by a thread of this process."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, seconds=20, what="the gateway listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def gateway_app(
    settings: Settings, *, use_case: UseCase = USE_CASE, predict_timeout: float = 5.0, **options: Any
) -> FastAPI:
    """The gateway as its process puts it together, over the small store."""
    features = OnlineFeatures(functools.partial(open_small_store, settings))
    server = ModelServer.of(settings)
    return create_app(
        [use_case],
        features,
        server,
        predict_timeout=predict_timeout,
        access=Access(settings.gateway_keys),
        models_dir=settings.models_dir,
        **options,
    )


def serve_champion(settings: Settings, version: int) -> None:
    """Make the model server serve `version` as champion."""
    name = USE_CASE.model_name
    versions = frozenset({version})
    with ModelServer.of(settings) as server:
        plain = ServedModel(name, settings.models_dir / name, versions)
        labelled = ServedModel(name, settings.models_dir / name, versions, {CHAMPION: version})
        server.reload(config_message({name: plain}), timeout=60)
        server.reload(config_message({name: labelled}), timeout=60)


@pytest.fixture(scope="session")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A loop that has run: features are materialised and a champion serves."""
    folder = tmp_path_factory.mktemp("gateway")
    settings = Settings(state_dir=folder / "state", model_server_grpc_port=free_port())
    model = save_model(USE_CASE, -0.5, settings.models_dir / USE_CASE.model_name / str(VERSION))
    store = open_small_store(settings)
    apply_features(store, USE_CASE, folder)
    features = fill_features(store, USE_CASE)
    with model_server_process(settings, folder / "model_server.log"):
        serve_champion(settings, VERSION)
        yield Loop(settings, store, features, model)


@pytest.fixture(scope="session")
def gateway_url(loop: Loop) -> Iterator[str]:
    """The base URL of a gateway over the loop."""
    with listening(gateway_app(loop.settings)) as url:
        yield url


@pytest.fixture
def client(gateway_url: str) -> Iterator[httpx.Client]:
    """An HTTP client of that gateway."""
    with httpx.Client(base_url=gateway_url, timeout=30, trust_env=False) as client:
        yield client
