"""A trial of the planted use case in a process of its own, for tests that kill it.

python -m tests.training.planted_trial STATE TRAINING_SET STUDY SLOT [--result FILE]
"""

from __future__ import annotations

import argparse
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from airloop.jobs import run_job
from airloop.references import TrainingSet, TrialDone
from airloop.settings import Settings
from airloop.training import fitting
from airloop.training.train import stop_on_sigterm
from airloop.training.trial import run_trial
from airloop.use_cases.spec import UseCase
from airloop.use_cases.training_policy import Choices, Range, Tuning
from tests.training.conftest import COMMIT, settings_in
from tests.training.planted import planted_use_case

SPACE: dict[str, Range | Choices] = {
    "width": Range(low=8, high=64, log=True, integer=True),
    "dropout": Range(low=0.0, high=0.5),
    "learning_rate": Range(low=0.00001, high=0.1, log=True),
    "batch_size": Choices(values=(256, 512)),
}


def tuned_use_case(epochs: int = 2, **tuning: object) -> UseCase:
    """The planted use case with a search space, and trainings of so many epochs."""
    spec = planted_use_case()
    parameters = {**spec.training.parameters, "max_epochs": epochs, "patience_epochs": epochs}
    policy = Tuning.model_validate({"space": SPACE, "trials": 4, "minutes": 10, **tuning})
    changed = spec.training.model_copy(update={"parameters": parameters, "tuning": policy})
    return spec.model_copy(update={"training": changed})


def long_use_case() -> UseCase:
    """Trials long enough to be killed in."""
    return tuned_use_case(epochs=12)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("training_set")
    parser.add_argument("study")
    parser.add_argument("slot", type=int)
    stop = threading.Event()
    stop_on_sigterm(stop)
    fitting.CHECKPOINT_SECONDS = 0.2

    def work(arguments: argparse.Namespace, _: Settings) -> TrialDone:
        return run_trial(
            settings_in(arguments.folder),
            long_use_case(),
            TrainingSet.model_validate_json(arguments.training_set),
            arguments.study,
            arguments.slot,
            COMMIT,
            now=datetime.now(UTC),
            stop=stop,
        )

    return run_job(parser, work)


if __name__ == "__main__":
    sys.exit(main())
