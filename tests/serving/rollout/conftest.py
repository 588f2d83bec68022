"""Fixtures: one model server process and one MLflow database for all tests, a model of its own for each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airloop.settings import Settings
from airloop.use_cases.flight_delay import USE_CASE
from airloop.use_cases.spec import UseCase
from serving.model_server_client import ModelServer
from tests.serving.rollout.stack import free_port, model_server_process, register, save_model

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings with a running model server and an MLflow database."""
    folder = tmp_path_factory.mktemp("rollout")
    settings = Settings(
        state_dir=folder / "state",
        mlflow_uri=f"sqlite:///{folder / 'mlflow.db'}",
        model_server_grpc_port=free_port(),
    )
    settings.models_dir.mkdir(parents=True)
    with model_server_process(settings, folder / "model_server.log"):
        yield settings


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """SavedModels by their bias: three that answer differently."""
    folder = tmp_path_factory.mktemp("saved")
    return {bias: save_model(USE_CASE, bias, folder / str(bias)) for bias in (-1.0, 0.0, 1.0)}


@pytest.fixture
def spec() -> UseCase:
    """The reference use case under a name that no other test uses."""
    return USE_CASE.model_copy(update={"name": f"flight_delay_{next(_numbers)}"})


@pytest.fixture
def settings(shared: Settings, tmp_path: Path) -> Settings:
    """The shared services, with a models folder of the test's own."""
    return shared.model_copy(update={"state_dir": tmp_path / "state"})


@pytest.fixture
def server(settings: Settings) -> Iterator[ModelServer]:
    """A client of the model server."""
    with ModelServer.of(settings) as client:
        yield client


@pytest.fixture
def candidate(
    settings: Settings, spec: UseCase, saved: dict[float, Path], tmp_path: Path
) -> Callable[..., int]:
    """Registers the SavedModel of a bias as the challenger and returns its version."""

    def make(bias: float, *, shift: float = 0.0, broken: bool = False) -> int:
        return register(settings, spec, saved[bias], tmp_path / "artifacts", shift=shift, broken=broken)

    return make
