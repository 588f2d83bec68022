"""The drill: the version that a rollback would go to loads and answers, and nothing that serves moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airloop import registry
from airloop.errors import RegistryError
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from serving.drill import drill
from serving.infra_check import infra_check
from serving.model_config import read_models
from serving.model_server_client import CHAMPION, ModelServer
from serving.promote import promote
from tests.serving.rollout.stack import ROWS

Candidate = Callable[..., int]


def roll_out(settings: Settings, spec: UseCase, version: int) -> None:
    infra_check(settings, spec, version, apart=False)
    promote(settings, spec, version)


def test_the_version_before_loads_and_answers_and_what_serves_is_not_touched(
    settings: Settings, spec: UseCase, candidate: Candidate, server: ModelServer
) -> None:
    with pytest.raises(RegistryError, match="nothing serves yet"):
        drill(settings, spec)
    first, second = candidate(0.0), candidate(1.0)
    roll_out(settings, spec, first)
    roll_out(settings, spec, second)
    config, states = settings.model_config_file.read_bytes(), server.states(spec.model_name)
    drilled = drill(settings, spec)
    assert (drilled.version, drilled.loaded, drilled.requests_replayed) == (first, True, ROWS)
    assert drilled.largest_difference <= 1e-5
    assert settings.model_config_file.read_bytes() == config
    assert server.states(spec.model_name) == states
    assert server.labelled(spec.model_name, CHAMPION) == second


def test_a_way_back_that_was_damaged_is_found_before_it_is_needed(
    settings: Settings, spec: UseCase, candidate: Candidate
) -> None:
    first, second = candidate(0.0), candidate(1.0)
    roll_out(settings, spec, first)
    roll_out(settings, spec, second)
    run = registry.open_registry(settings).get_run(registry.run_of(settings, spec.model_name, first))
    graph = Path(run.info.artifact_uri.removeprefix("file://")) / registry.SAVED_MODEL / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(RegistryError, match="signed"):
        drill(settings, spec)


def test_without_a_version_before_the_record_of_what_served_is_asked(
    settings: Settings, spec: UseCase, candidate: Candidate
) -> None:
    first, second, third = candidate(0.0), candidate(1.0), candidate(-1.0)
    for version in (first, second, third):
        roll_out(settings, spec, version)
    # The third is given up: the second serves again and nothing is kept loaded beside it.
    promote(settings, spec, second, reason="ticket 12", giving_up=third)
    registry.tag_version(settings, spec.model_name, third, registry.ROLLED_BACK, "ticket 12")
    assert read_models(settings)[spec.model_name].previous is None
    folder = settings.models_dir / spec.model_name / str(first)
    assert not folder.exists()
    drilled = drill(settings, spec)
    assert (drilled.version, drilled.loaded) == (first, False)
    assert "on record" in drilled.why
    assert not folder.exists(), "what a drill brought is gone again"
