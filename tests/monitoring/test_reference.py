"""Which version is watched, and why none is."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airloop.errors import MonitoringError
from airloop.monitoring.cells import Cells
from airloop.monitoring.profile import ARTIFACT, Profile, Profiled, kept_profile
from airloop.monitoring.reference import reference
from airloop.registry import open_registry, register_version
from airloop.serving_history import record_promotion
from airloop.settings import Settings
from airloop.use_cases.flight_delay import USE_CASE


@pytest.fixture
def settings(tmp_path: Path, new_registry: Path) -> Settings:
    shutil.copyfile(new_registry, tmp_path / "mlflow.db")
    return Settings(state_dir=tmp_path, mlflow_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")


def promoted(settings: Settings, *, with_profile: bool) -> tuple[int, str]:
    """A version that was made the champion; its number and its run."""
    client = open_registry(settings)
    # Over a bare database MLflow would put the artifacts of its default experiment into the checkout.
    location = (settings.state_dir / "artifacts").as_uri()
    there = client.get_experiment_by_name(USE_CASE.name)
    experiment = there.experiment_id if there else client.create_experiment(USE_CASE.name, location)
    run_id = client.create_run(experiment).info.run_id
    if with_profile:
        empty = Profiled(cells=Cells(feature="prediction", kind="number"), days=(), counts=())
        made = Profile(use_case=USE_CASE.name, run_id=run_id, features=(), prediction=empty)
        client.log_text(run_id, made.model_dump_json(), ARTIFACT)
    version = register_version(
        settings, name=USE_CASE.model_name, run_id=run_id, source=f"runs:/{run_id}/saved_model", tags={}
    )
    record_promotion(settings, use_case=USE_CASE.name, version=version, replaces=None, facts={})
    return version, run_id


def test_the_champion_and_its_profile_are_brought(settings: Settings) -> None:
    version, run_id = promoted(settings, with_profile=True)
    now = datetime.now(UTC) + timedelta(seconds=1)
    found = reference(settings, USE_CASE, now)
    assert (found.version, found.run_id, found.skipped) == (version, run_id, None)
    assert kept_profile(settings, USE_CASE.name, run_id).run_id == run_id
    assert reference(settings, USE_CASE, now) == found


def test_before_anything_served_there_is_nothing_to_watch(settings: Settings) -> None:
    assert "nothing to watch" in (reference(settings, USE_CASE, datetime.now(UTC)).skipped or "")
    promoted(settings, with_profile=True)
    past = datetime(2026, 1, 1, tzinfo=UTC)
    assert "nothing to watch" in (reference(settings, USE_CASE, past).skipped or "")


def test_a_champion_without_a_profile_is_passed_over_and_says_so(settings: Settings) -> None:
    version, _ = promoted(settings, with_profile=False)
    skipped = reference(settings, USE_CASE, datetime.now(UTC) + timedelta(seconds=1)).skipped or ""
    assert f"version {version} cannot be watched" in skipped


def test_a_profile_that_was_not_brought_is_asked_for(settings: Settings) -> None:
    with pytest.raises(MonitoringError, match=r"airloop\.monitoring\.reference"):
        kept_profile(settings, USE_CASE.name, "unknown")
