"""One real training, evaluation and registration, shared by the tests that look at its results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from airloop.references import Candidate, Evaluated, TrainingSet
from airloop.settings import Settings
from airloop.training import importance, serving_cost
from airloop.training.evaluate import evaluate
from airloop.training.train import train
from airloop.use_cases.spec import UseCase
from tests.training.planted import planted_rows, planted_use_case, write_training_set

COMMIT = "1111111111111111111111111111111111111111"


@dataclass(frozen=True)
class Trained:
    """A deployment in which a candidate was trained and evaluated, and nothing registered."""

    settings: Settings
    spec: UseCase
    rows: pa.Table
    training_set: TrainingSet
    candidate: Candidate
    evaluated: Evaluated


def settings_in(folder: Path) -> Settings:
    """A deployment of its own in `folder`, with MLflow in a SQLite file."""
    state = folder / "state"
    state.mkdir(parents=True, exist_ok=True)
    return Settings(state_dir=state, mlflow_uri=f"sqlite:///{folder / 'mlflow.db'}")


@pytest.fixture(scope="session", autouse=True)
def _quick() -> Iterator[None]:
    """Fewer timed calls and explained rows than a verdict for a person needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving_cost, "CALLS", 40)
        patch.setattr(importance, "EXPLAINED_ROWS", 120)
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """The candidate that tests only read; those that register work in a deployment of their own."""
    settings = settings_in(tmp_path_factory.mktemp("trained"))
    spec, rows = planted_use_case(), planted_rows()
    training_set = write_training_set(settings, rows)
    candidate = train(settings, spec, training_set, COMMIT)
    evaluated = evaluate(settings, spec, training_set, candidate)
    return Trained(settings, spec, rows, training_set, candidate, evaluated)
