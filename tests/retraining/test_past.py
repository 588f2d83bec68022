"""What became of each training, as MLflow's runs and versions say."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from airloop.registry import PROMOTED_BY, ROLLED_BACK, open_registry, register_version
from airloop.retraining.decision import Training
from airloop.retraining.past import LONGEST_OPEN, trainings_of
from airloop.serving_history import record_promotion
from airloop.settings import Settings
from airloop.training.tracking import COMPLETE, REPORT, TRAINING_PRICE, USE_CASE, VERDICT
from airloop.use_cases.flight_delay import USE_CASE as SPEC

START = datetime(2026, 11, 1, tzinfo=UTC)


class Registry:
    """An experiment with a training a day."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.client: MlflowClient = open_registry(settings)
        self.experiment = self.client.create_experiment(SPEC.name)
        self.days = 0

    def train(self, verdict: str | None = None, *, status: str = "FINISHED", complete: bool = True) -> str:
        self.days += 1
        tags = {USE_CASE: SPEC.name} | ({COMPLETE: "true"} if complete else {})
        tags |= {VERDICT: verdict} if verdict else {}
        started = int((START + timedelta(days=self.days)).timestamp() * 1000)
        run_id: str = self.client.create_run(self.experiment, started, tags).info.run_id
        if status != "RUNNING":
            self.client.set_terminated(run_id, status)
        return run_id

    def register(self, tag: str | None = None) -> None:
        run_id = self.train("accepted")
        source = f"runs:/{run_id}/saved_model"
        tags = {tag: "why"} if tag else {}
        register_version(self.settings, name=SPEC.model_name, run_id=run_id, source=source, tags=tags)

    def past(self, days: float = 0.5) -> tuple[Training, ...]:
        """As of so many days after the last training."""
        return trainings_of(self.settings, SPEC, START + timedelta(days=self.days + days))

    def outcomes(self, days: float = 0.5) -> list[str]:
        return [training.outcome for training in self.past(days)]


@pytest.fixture
def registry(tmp_path: Path, new_registry: Path) -> Registry:
    shutil.copyfile(new_registry, tmp_path / "mlflow.db")
    return Registry(Settings(state_dir=tmp_path, mlflow_uri=f"sqlite:///{tmp_path / 'mlflow.db'}"))


def test_a_candidate_wins_by_its_promotion_and_loses_by_its_verdict_or_its_rollout(
    registry: Registry,
) -> None:
    registry.register(PROMOTED_BY)
    registry.train("rejected")
    registry.register(ROLLED_BACK)
    assert registry.outcomes() == ["won", "lost", "lost"]
    assert [training.started for training in registry.past()] == [
        START + timedelta(days=day) for day in (1, 2, 3)
    ]


def test_one_that_was_superseded_or_died_says_nothing(registry: Registry) -> None:
    registry.register()
    registry.train(status="FAILED", complete=False)
    registry.register(PROMOTED_BY)
    assert registry.outcomes() == ["failed", "failed", "won"]


def test_what_is_under_way_is_open_for_a_week(registry: Registry) -> None:
    registry.train(status="RUNNING", complete=False)
    registry.train()
    registry.register()
    assert registry.outcomes() == ["open", "open", "open"]
    week = LONGEST_OPEN / timedelta(days=1)
    assert registry.outcomes(week + 0.1) == ["failed", "failed", "failed"]


def test_prices_are_known_where_a_run_has_one_and_reports_are_no_trainings(registry: Registry) -> None:
    run_id = registry.train("rejected")
    registry.client.log_metric(run_id, TRAINING_PRICE, 1.25)
    registry.train("rejected")
    registry.client.create_run(registry.experiment, tags={REPORT: "a study"})
    assert [training.price for training in registry.past()] == [1.25, None]


def test_a_candidate_that_was_given_up_once_and_serves_now_won(registry: Registry) -> None:
    registry.register(ROLLED_BACK)
    registry.train("rejected")
    assert registry.outcomes() == ["lost", "lost"]
    record_promotion(registry.settings, use_case=SPEC.name, version=1, replaces=None, facts={})
    assert registry.outcomes() == ["won", "lost"]


def test_a_run_that_is_cleared_later_knows_what_was_trained_since(registry: Registry) -> None:
    registry.train("rejected")
    assert len(trainings_of(registry.settings, SPEC, START)) == 1


def test_in_no_experiment_nothing_was_trained(tmp_path: Path) -> None:
    empty = Settings(state_dir=tmp_path, mlflow_uri=f"sqlite:///{tmp_path / 'other.db'}")
    assert trainings_of(empty, SPEC, START) == ()
