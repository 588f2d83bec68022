"""The manager by itself, with loads that a test controls."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from serving.model_server.config import ModelConfig
from serving.model_server.errors import Code, ServingError
from serving.model_server.manager import LoadRetries, ModelManager
from serving.model_server.metrics import Metrics
from serving.model_server.model_choice import ModelChoice
from serving.model_server.servable import Servable
from serving.model_server.transitions import State
from serving.model_server.versions import All


class Loader:
    """Loads a servable without signatures, after as many failures as it is told; `gate` holds loads up."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.loaded: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, name: str, version: int, path: Path) -> Servable:
        self.entered.set()
        assert self.gate.wait(10)
        self.loaded.append(version)
        if self.failures:
            self.failures -= 1
            raise ServingError(Code.DATA_LOSS, "damaged")
        return Servable(name, version, {}, {}, Metrics())


@pytest.fixture
def model(tmp_path: Path) -> ModelConfig:
    (tmp_path / "1").mkdir()
    return ModelConfig("delay", tmp_path, All())


def _states(manager: ModelManager) -> dict[int, State]:
    return {status.version: status.state for status in manager.statuses(ModelChoice("delay"))}


def test_requests_are_answered_while_another_version_loads(model: ModelConfig) -> None:
    loader = Loader()
    manager = ModelManager(loader)
    manager.reload([model])
    (model.base_path / "2").mkdir()
    loader.gate.clear()
    loader.entered.clear()
    poll = threading.Thread(target=manager.poll)
    poll.start()
    assert loader.entered.wait(10)
    with manager.lease(ModelChoice("delay")) as servable:
        assert servable.version == 1
    assert _states(manager) == {2: State.LOADING, 1: State.AVAILABLE}
    loader.gate.set()
    poll.join()
    with manager.lease(ModelChoice("delay")) as servable:
        assert servable.version == 2


def test_a_failed_load_is_tried_again_as_often_as_it_is_told(model: ModelConfig) -> None:
    loader = Loader(failures=2)
    manager = ModelManager(loader, retries=LoadRetries(attempts=2, wait_seconds=0.0))
    manager.reload([model])
    assert loader.loaded == [1, 1, 1]
    assert _states(manager) == {1: State.AVAILABLE}


def test_a_failed_version_is_not_tried_again_at_every_poll(model: ModelConfig) -> None:
    loader = Loader(failures=1)
    manager = ModelManager(loader)
    with pytest.raises(ServingError, match="DATA_LOSS: damaged"):
        manager.reload([model])
    manager.poll()
    manager.poll()
    assert loader.loaded == [1]
    assert _states(manager) == {1: State.END}


def test_a_version_wanted_again_while_its_last_request_runs_starts_afresh(model: ModelConfig) -> None:
    loader = Loader()
    manager = ModelManager(loader)
    manager.reload([model])
    with manager.lease(ModelChoice("delay")) as former:
        manager.reload([])
        assert _states(manager) == {1: State.UNLOADING}
        manager.reload([model])
        with manager.lease(ModelChoice("delay")) as current:
            assert current is not former
    assert loader.loaded == [1, 1]
    assert _states(manager) == {1: State.AVAILABLE}


def test_a_base_path_that_goes_away_leaves_the_model_serving(model: ModelConfig, tmp_path: Path) -> None:
    manager = ModelManager(Loader())
    manager.reload([model])
    tmp_path.rename(tmp_path.with_name("elsewhere"))
    with pytest.raises(ServingError, match="Could not find base path"):
        manager.poll()
    assert _states(manager) == {1: State.AVAILABLE}


def test_every_version_folder_that_goes_takes_its_version_along(model: ModelConfig) -> None:
    manager = ModelManager(Loader())
    manager.reload([model])
    (model.base_path / "1").rmdir()
    manager.poll()
    assert _states(manager) == {1: State.END}
    lease = manager.lease(ModelChoice("delay"))
    with pytest.raises(ServingError, match=r"Servable not found for request: Latest\(delay\)"), lease:
        pytest.fail("nothing should answer")
