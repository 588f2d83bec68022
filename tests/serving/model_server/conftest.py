"""Fixtures: SavedModels saved once per session, and servers in this process on free ports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.model_server.server import ModelServer
from serving.model_server.settings import Settings
from tests.serving.model_server.clients import Client, config
from tests.serving.model_server.models import publish, save_everything, save_regressor

# Everything that these tests start listens on ports that the system picks, and polls only when told to.
_QUIET = Settings(grpc_port=0, rest_port=0, file_system_poll_wait_seconds=0.0, shutdown_grace_seconds=10.0)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One SavedModel of each kind: regressors with biases 1, 2 and 3, and "everything"."""
    folder = tmp_path_factory.mktemp("saved")
    models = {f"bias{bias}": folder / f"bias{bias}" for bias in (1, 2, 3)}
    for bias in (1, 2, 3):
        save_regressor(models[f"bias{bias}"], float(bias))
    models["everything"] = folder / "everything"
    save_everything(models["everything"])
    return models


@pytest.fixture(scope="session")
def served(saved: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server whose models no test changes: "delay" (versions 1 and 2, labelled) and "everything"."""
    folder = tmp_path_factory.mktemp("served")
    for version in (1, 2):
        publish(saved[f"bias{version}"], folder / "delay", version)
    publish(saved["everything"], folder / "everything", 1)
    server = ModelServer(_QUIET)
    server.start()
    assert all((server.grpc_port, server.rest_port))
    client = Client(server.grpc_port, server.rest_port)
    everything: tuple[str, Path, dict[str, Any]] = ("everything", folder / "everything", {})
    client.reload(config(("delay", folder / "delay", {"all": True}), everything))
    labels = {"stable": 1, "canary": 2}
    client.reload(config(("delay", folder / "delay", {"all": True, "labels": labels}), everything))
    yield client
    client.channel.close()
    server.stop()


@pytest.fixture
def start_server() -> Iterator[Callable[..., Client]]:
    """Start a server with given settings over the quiet ones; stopped at the end of the test."""
    started: list[tuple[ModelServer, Client]] = []

    def start(**settings: object) -> Client:
        server = ModelServer(replace(_QUIET, **settings))  # type: ignore[arg-type] # names are the test's own
        server.start()
        assert all((server.grpc_port, server.rest_port))
        client = Client(server.grpc_port, server.rest_port)
        started.append((server, client))
        return client

    yield start
    for server, client in started:
        client.channel.close()
        server.stop()
